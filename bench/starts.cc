#include "starts.h"

#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <linux/sched.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <cowshed/share/workers.h>

#include "got.h"

namespace cowshed::bench {
namespace {

constexpr const char* kBegin = "--begin";
constexpr const char* kThisProgram = "/proc/self/exe";

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::int64_t begin_worker() { return now_ns(); }

void reap(pid_t pid) {
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
    throw std::runtime_error("a worker did not start, or failed");
  }
}

pid_t spawn(int output, char** arguments) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, kThisProgram, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? pid : -1;
}

// The two share memory and stack until the exec: nothing else may be done here.
pid_t vfork_and_exec(int output, char** arguments) {
  const pid_t pid = vfork();
  if (pid == 0) {
    if (dup2(output, STDOUT_FILENO) == STDOUT_FILENO) {
      execve(kThisProgram, arguments, environ);
    }
    _exit(127);
  }
  return pid;
}

// This program anew, whose main() says when it began.
std::int64_t by_exec(pid_t (*start)(int output, char** arguments)) {
  std::array<int, 2> ends = {};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  std::array<char*, 3> arguments = {const_cast<char*>("worker"), const_cast<char*>(kBegin),
                                    nullptr};
  const pid_t pid = start(ends[1], arguments.data());
  close(ends[1]);
  std::int64_t begun = 0;
  const bool said = read(ends[0], &begun, sizeof begun) == sizeof begun;
  close(ends[0]);
  reap(pid);
  if (!said) throw std::runtime_error("a worker did not say when it began");
  return begun;
}

}  // namespace

Starter::Starter()
    : clock_(static_cast<std::int64_t*>(
          mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
  if (clock_ == MAP_FAILED) throw std::runtime_error("mmap failed");
}

StartTimes Starter::measure(const std::string& method) {
  *clock_ = 0;
  const std::int64_t before = now_ns();
  const std::int64_t begun = begun_by(method);
  const std::int64_t ended = now_ns();
  if (begun < before || begun > ended) {
    throw std::runtime_error("a worker by " + method + " did not begin when it was started");
  }
  return {static_cast<double>(begun - before) / 1000, static_cast<double>(ended - before) / 1000};
}

std::int64_t Starter::begun_by(const std::string& method) {
  if (method == "bare fork") return by_fork();
  if (method == "clone3") return by_clone3();
  if (method == "thread") return by_thread();
  if (method == "vfork") return by_exec(vfork_and_exec);
  if (method == "posix_spawn") return by_exec(spawn);
  return by_library(method);
}

std::int64_t Starter::by_fork() {
  const pid_t pid = fork();
  if (pid == 0) {
    *clock_ = now_ns();
    _exit(0);
  }
  reap(pid);
  return *clock_;
}

std::int64_t Starter::by_clone3() {
  int pidfd = -1;
  clone_args arguments = {};
  arguments.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
  arguments.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;
  const long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid == 0) {
    *clock_ = now_ns();
    _exit(0);
  }
  siginfo_t end = {};
  const bool well = pid > 0 && waitid(P_PIDFD, static_cast<id_t>(pidfd), &end, WEXITED) == 0 &&
                    end.si_status == 0;
  close(pidfd);
  if (!well) throw std::runtime_error("clone3 failed");
  return *clock_;
}

std::int64_t Starter::by_thread() {
  std::thread([this] { *clock_ = now_ns(); }).join();
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
  auto workers = got(start<begin_worker>(options));
  const auto results = got(workers.wait());
  if (!results[0].value) throw std::runtime_error(results[0].error);
  return *results[0].value;
}

std::optional<int> is_worker(int argc, char** argv) {
  const std::int64_t now = now_ns();
  if (argc != 2 || std::strcmp(argv[1], kBegin) != 0) return std::nullopt;
  return write(STDOUT_FILENO, &now, sizeof now) == sizeof now ? 0 : 1;
}

}  // namespace cowshed::bench
