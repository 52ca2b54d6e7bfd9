#include "starts.h"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/workers.h>

#include "got.h"
#include "peer.h"
#include "repeat.h"

namespace cowshed::bench {
namespace {

constexpr const char* kWorker = "--worker";

std::int64_t clock_ns() { return static_cast<std::int64_t>(now_ns()); }

void reap(pid_t pid) {
  int status = 0;
  if (pid < 0) throw std::runtime_error("it could not be started");
  if (waitpid(pid, &status, 0) != pid || status != 0) throw std::runtime_error("it has failed");
}

}  // namespace

std::optional<int> is_worker(int argc, char** argv) {
  if (argc != 2 || std::strcmp(argv[1], kWorker) != 0) return std::nullopt;
  const std::int64_t now = clock_ns();
  return write(STDOUT_FILENO, &now, sizeof now) == sizeof now ? 0 : 1;
}

Starter::Starter() : clock_(static_cast<std::int64_t*>(shared_memory(sizeof *clock_))) {}

StartTimes Starter::measure(const std::string& method) try {
  const auto times = repeat([&] { return measure_one(method); });
  return {median_of(times, &StartTimes::begin_us), median_of(times, &StartTimes::cycle_us)};
} catch (const std::runtime_error& failure) {
  throw std::runtime_error("a worker by " + method + ": " + failure.what());
}

StartTimes Starter::measure_one(const std::string& method) {
  *clock_ = 0;
  const std::int64_t before = clock_ns();
  const std::int64_t begun = method == "bare fork"     ? by_fork()
                             : method == "posix_spawn" ? by_posix_spawn()
                                                       : by_library(method);
  const std::int64_t ended = clock_ns();
  if (begun < before || begun > ended)
    throw std::runtime_error("it did not begin when it was started");
  return {static_cast<double>(begun - before) / 1000, static_cast<double>(ended - before) / 1000};
}

std::int64_t Starter::by_fork() {
  const pid_t pid = fork();
  if (pid == 0) {
    *clock_ = clock_ns();
    _exit(0);
  }
  reap(pid);
  return *clock_;
}

std::int64_t Starter::by_posix_spawn() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::array<char*, 3> arguments = {const_cast<char*>("worker"), const_cast<char*>(kWorker),
                                    nullptr};
  pid_t pid = -1;
  if (posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments.data(), environ) != 0)
    pid = -1;
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  const bool has_said = read(ends[0], clock_, sizeof *clock_) == sizeof *clock_;
  close(ends[0]);
  reap(pid);
  if (!has_said) throw std::runtime_error("it did not say when it began");
  return *clock_;
}

std::int64_t Starter::by_library(const std::string& method) {
  WorkersOptions options;
  if (method == "spawn") options.method = Start::spawn;
  if (method == "forkserver") {
    if (!server_) server_.emplace(got(ForkServer::start()));
    options.method = Start::forkserver;
    options.server = &*server_;
  }
  auto workers = got(start<clock_ns>(options));
  const auto results = got(workers.wait());
  if (!results[0].value) throw std::runtime_error(results[0].error);
  return *results[0].value;
}

}  // namespace cowshed::bench
