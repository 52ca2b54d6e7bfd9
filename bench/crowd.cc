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

// By hand: they say by one pipe that they have begun, and wait at the other.
void say_begun(int begun) { write_all(begun, "", 1); }
void wait_for_release(int release) {
  char byte = 0;
  read_all(release, &byte, 1);
}

int stand_alone() {
  say_begun(STDOUT_FILENO);
  close(STDOUT_FILENO);
  wait_for_release(STDIN_FILENO);
  return 0;
}

double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

std::size_t pss(pid_t pid) { return proc_bytes(fmt::format("/proc/{}/smaps_rollup", pid), "Pss"); }

void look_at(Crowd& crowd, const ForkServer* server) {
  for (const pid_t pid : crowd.pids) {
    crowd.table_bytes += proc_bytes(fmt::format("/proc/{}/status", pid), "VmPTE");
    crowd.memory_bytes += pss(pid);
  }
  // Of what they share with it, theirs alone would be less the more of them there are.
  crowd.memory_bytes += pss(getpid()) + (server != nullptr ? pss(server->pid()) : 0);
}

// Each end of a pipe is open where it is used, and no longer: who dies early, or whose starter
// does, is noticed.
Crowd start_by_hand(const std::string& method, int count, bool look) {
  std::vector<BareWorker> workers;
  Pipe begun;
  Pipe release;
  const bool are_processes = method != "thread";
  const BareTask task = {[&] {
                           if (are_processes) release.close_write_end();
                           say_begun(begun.write_end());
                           if (are_processes) begun.close_write_end();
                           wait_for_release(release.read_end());
                         },
                         stand_task.name, release.read_end(), begun.write_end()};
  std::vector<char> bytes(static_cast<std::size_t>(count));
  Crowd crowd = {};
  workers.reserve(bytes.size());
  const auto before = Clock::now();
  for (int i = 0; i < count; ++i) workers.emplace_back(method, task);
  if (are_processes) begun.close_write_end();
  read_all(begun.read_end(), bytes.data(), bytes.size());
  crowd.begun_us = us_since(before);
  for (const BareWorker& worker : workers) {
    if (worker.pid() > 0) crowd.pids.push_back(worker.pid());
  }
  if (look) look_at(crowd, nullptr);
  const auto released = Clock::now();
  write_all(release.write_end(), bytes.data(), bytes.size());
  for (BareWorker& worker : workers) worker.reap();
  crowd.ended_us = us_since(released);
  return crowd;
}

Crowd start_by_library(const std::string& method, int count, const ForkServer* server, bool look) {
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
  if (look) look_at(crowd, server);
  const auto released = Clock::now();
  for (int i = 0; i < count; ++i) got(release.send(i));
  for (const auto& exit : got(workers.wait())) {
    if (!exit.ok()) throw std::runtime_error(exit.error);
  }
  crowd.ended_us = us_since(released);
  return crowd;
}

}  // namespace

const NamedTask stand_task = {"--stand", stand_alone};

Crowd start_crowd(const std::string& method, int count, const ForkServer* server, bool look) {
  return is_bare(method) ? start_by_hand(method, count, look)
                         : start_by_library(method, count, server, look);
}

}  // namespace cowshed::bench
