#include "crowd.h"

#include <chrono>
#include <fmt/format.h>
#include <stdexcept>
#include <unistd.h>

#include <cowshed/share/channel.h>
#include <cowshed/share/workers.h>

#include "got.h"
#include "machine.h"

namespace cowshed::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(60);

int stand(const Worker& self, Channel<int>& begun, Channel<int>& release) {
  if (!begun.send(self.rank)) return 1;
  return release.receive() ? 0 : 1;
}

double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

std::size_t pss(pid_t pid) { return proc_bytes(fmt::format("/proc/{}/smaps_rollup", pid), "Pss"); }

}  // namespace

Crowd start_crowd(const std::string& method, int count, const ForkServer* server, bool look) {
  auto begun = got(Channel<int>::create({.name = "begun"}));
  auto release = got(Channel<int>::create({.name = "release"}));
  WorkersOptions options;
  options.count = count;
  options.server = server;
  if (method == "spawn") options.method = Start::spawn;
  if (method == "forkserver") options.method = Start::forkserver;

  Crowd crowd = {};
  const auto before = Clock::now();
  auto workers = got(start<stand>(options, begun, release));
  for (int i = 0; i < count; ++i) got(begun.receive_until(Clock::now() + kPatience));
  crowd.begun_us = us_since(before);
  crowd.pids = workers.pids();
  for (const pid_t pid : look ? crowd.pids : std::vector<pid_t>()) {
    crowd.table_bytes += proc_bytes(fmt::format("/proc/{}/status", pid), "VmPTE");
    crowd.memory_bytes += pss(pid);
  }
  // Of what they share with it, theirs alone would be less the more of them there are.
  if (look) crowd.memory_bytes += pss(getpid()) + (server != nullptr ? pss(server->pid()) : 0);
  const auto released = Clock::now();
  for (int i = 0; i < count; ++i) got(release.send(i));
  for (const auto& exit : got(workers.wait())) {
    if (!exit.ok()) throw std::runtime_error(exit.error);
  }
  crowd.ended_us = us_since(released);
  return crowd;
}

}  // namespace cowshed::bench
