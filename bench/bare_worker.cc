#include "bare_worker.h"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <linux/sched.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace cowshed::bench {
namespace {

constexpr const char* kThisProgram = "/proc/self/exe";

bool runs_well(const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception&) {
    return false;
  }
  return true;
}

pid_t clone_with_pidfd(int& pidfd) {
  clone_args arguments = {};
  arguments.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
  arguments.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;
  return static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
}

pid_t spawn(const BareTask& task, char** arguments) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, task.input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, task.output, STDOUT_FILENO);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, kThisProgram, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? pid : -1;
}

// The two share memory and stack until the exec: nothing else may be done here.
pid_t vfork_and_exec(const BareTask& task, char** arguments) {
  const pid_t pid = vfork();
  if (pid == 0) {
    if (dup2(task.input, STDIN_FILENO) == STDIN_FILENO &&
        dup2(task.output, STDOUT_FILENO) == STDOUT_FILENO) {
      execve(kThisProgram, arguments, environ);
    }
    _exit(127);
  }
  return pid;
}

}  // namespace

Pipe::Pipe() {
  if (pipe2(ends_.data(), O_CLOEXEC) != 0) {
    throw std::system_error(errno, std::system_category(), "pipe2");
  }
}

Pipe::~Pipe() {
  close_read_end();
  close_write_end();
}

void Pipe::close_read_end() {
  if (ends_[0] >= 0) close(std::exchange(ends_[0], -1));
}

void Pipe::close_write_end() {
  if (ends_[1] >= 0) close(std::exchange(ends_[1], -1));
}

void Pipe::grow() {
  constexpr int kMost = 1 << 20;
  if (fcntl(ends_[1], F_SETPIPE_SZ, kMost) < kMost) {
    throw std::system_error(errno, std::system_category(), "F_SETPIPE_SZ");
  }
}

void read_all(int descriptor, void* data, std::size_t size) {
  for (auto* at = static_cast<char*>(data); size > 0;) {
    const ssize_t count = read(descriptor, at, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw std::runtime_error("a pipe ended early");
    at += count;
    size -= static_cast<std::size_t>(count);
  }
}

void write_all(int descriptor, const void* data, std::size_t size) {
  for (const auto* at = static_cast<const char*>(data); size > 0;) {
    const ssize_t count = write(descriptor, at, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw std::runtime_error("a pipe could not be written to");
    at += count;
    size -= static_cast<std::size_t>(count);
  }
}

std::optional<int> is_worker(int argc, char** argv, std::initializer_list<NamedTask> tasks) {
  if (argc != 2) return std::nullopt;
  for (const auto& [name, run] : tasks) {
    if (std::strcmp(argv[1], name) == 0) return run();
  }
  return std::nullopt;
}

bool is_bare(std::string_view method) {
  return method == "bare fork" || method == "clone3" || method == "thread" ||
         starts_program(method);
}

bool starts_program(std::string_view method) {
  return method == "vfork" || method == "posix_spawn";
}

BareWorker::BareWorker(const std::string& method, const BareTask& task) {
  std::array<char*, 3> arguments = {const_cast<char*>("worker"), const_cast<char*>(task.name),
                                    nullptr};
  if (method == "thread") {
    thread_has_failed_ = std::make_shared<std::atomic<bool>>(false);
    thread_ = std::jthread([has_failed = thread_has_failed_, work = task.inherited] {
      *has_failed = !runs_well(work);
    });
    return;
  }
  if (method == "vfork") {
    pid_ = vfork_and_exec(task, arguments.data());
  } else if (method == "posix_spawn") {
    pid_ = spawn(task, arguments.data());
  } else {
    pid_ = method == "clone3" ? clone_with_pidfd(pidfd_) : fork();
    if (pid_ == 0) _exit(runs_well(task.inherited) ? 0 : 1);
  }
  if (pid_ < 0) throw std::runtime_error("a worker by " + method + " could not be started");
}

void BareWorker::reap() {
  bool is_well = false;
  if (thread_.joinable()) {
    thread_.join();
    is_well = !*thread_has_failed_;
  } else if (pidfd_ >= 0) {
    siginfo_t end = {};
    is_well = waitid(P_PIDFD, static_cast<id_t>(pidfd_), &end, WEXITED) == 0 && end.si_status == 0;
    close(std::exchange(pidfd_, -1));
  } else {
    int status = 0;
    is_well = waitpid(pid_, &status, 0) == pid_ && status == 0;
  }
  if (!is_well) throw std::runtime_error("a worker has failed");
}

}  // namespace cowshed::bench
