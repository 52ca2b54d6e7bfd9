#include <algorithm>
#include <cerrno>
#include <csignal>
#include <spawn.h>
#include <string_view>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/share/process/other_threads.h>
#include <cowshed/share/workers/launch.h>
#include <cowshed/share/workers/worker_main.h>

// Starting one worker by fork or by spawn, and signalling it.
namespace cowshed::launch {
namespace {

// On an error, kills the child, because nobody could wait for it.
Expected<FileDescriptor> open_pidfd(pid_t pid) {
  FileDescriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));  // CLOEXEC by itself
  if (!pidfd) {
    const int error = errno;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return system_error("pidfd_open", error);
  }
  return pidfd;
}

std::string_view name_of(std::string_view variable) {
  return variable.substr(0, variable.find('='));
}

// This process's environment, with `added` in place of variables of the same name.
std::vector<char*> merge_environment(const std::vector<std::string>& added) {
  std::vector<char*> all;
  // clearenv() leaves no list at all.
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    const bool replaced = std::ranges::any_of(
        added, [&](const std::string& other) { return name_of(other) == name_of(*variable); });
    if (!replaced) all.push_back(*variable);
  }
  for (const std::string& variable : added) all.push_back(const_cast<char*>(variable.c_str()));
  all.push_back(nullptr);
  return all;
}

}  // namespace

Expected<Child> fork_worker(const Launch& launch, int rank) {
  TRY(auto sockets, make_socket_pair());
  flush_streams();
  const pid_t parent = getpid();
  const std::uint64_t before = monotonic_ns();
  const pid_t pid = fork();
  if (pid == 0) {
    sockets.first = FileDescriptor();
    run_worker({rank, launch.options.count}, std::move(sockets.second), parent, launch.options,
               launch.task.body);
  }
  if (pid < 0) return system_error("fork", errno);
  Child worker;
  worker.exit.rank = rank;
  worker.exit.pid = pid;
  worker.exit.start_ns = monotonic_ns() - before;
  worker.socket = std::move(sockets.first);
  TRY(worker.pidfd, open_pidfd(pid));
  return worker;
}

Expected<Child> spawn_worker(const Launch& launch, int rank) {
  const WorkersOptions& options = launch.options;
  TRY(auto sockets, make_socket_pair());
  const int socket = sockets.first.get();
  TRY_VOID(send_message(socket, MessageKind::adopt, {}, launch.arenas));
  TRY_VOID(send_message(socket, MessageKind::job, {rank, options.count}, launch.job));
  const std::uint64_t before = monotonic_ns();
  TRY(Child worker, spawn_process(options.program, sockets.second.get(), options.environment));
  worker.exit.rank = rank;
  worker.exit.start_ns = monotonic_ns() - before;
  worker.socket = std::move(sockets.first);
  return worker;
}

Expected<Child> spawn_process(const std::string& program, int socket,
                              const std::vector<std::string>& environment) {
  const std::string first = program.empty() ? program_name() : program;
  // Not this program's path: another file may have it by now.
  const char* file = program.empty() ? "/proc/self/exe" : program.c_str();
  std::array<char*, 3> arguments = {const_cast<char*>(first.c_str()),
                                    const_cast<char*>(kWorkerArgument), nullptr};
  const std::vector<char*> variables = merge_environment(environment);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  int error = posix_spawn_file_actions_adddup2(&actions, socket, kSocketNumber);
  if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&actions, kSocketNumber + 1);
  pid_t pid = 0;
  if (error == 0)
    error = posix_spawn(&pid, file, &actions, nullptr, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    return system_error("posix_spawn of " + (program.empty() ? "this program" : program), error);
  Child child;
  child.exit.pid = pid;
  TRY(child.pidfd, open_pidfd(pid));
  return child;
}

Expected<void> send_signal(pid_t pid, const FileDescriptor& pidfd, int signal) {
  if (syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) == 0 || errno == ESRCH ||
      internal::is_ready(pidfd.get())) {
    return {};
  }
  if (kill(pid, signal) == 0 || errno == ESRCH) return {};
  return system_error("kill of pid " + std::to_string(pid) + ", which goes on", errno);
}

Expected<void> check_threads(const std::string& who) {
  // That of `cowshed run --undo` expects forks.
  const std::string names = internal::other_threads("cowshed-undo");
  if (names.empty()) return {};
  return make_error(ErrorCode::threads_running,
                    who + ": this process has other threads: " + names +
                        "; what they hold locked would stay locked in a forked worker; use "
                        "Start::spawn or Start::forkserver, or .threads = Threads::allow");
}

}  // namespace cowshed::launch
