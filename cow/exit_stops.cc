#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <string>
#include <string_view>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <system_error>
#include <utility>
#include <vector>

#include <cowshed/cow/clock.h>
#include <cowshed/cow/exit_stops.h>

namespace cowshed::cow {
namespace {

constexpr int kEventShift = 16;  // of a status: the event of ptrace(2)

long request(__ptrace_request what, pid_t task, std::uintptr_t data = 0) {
  return ::ptrace(what, task, nullptr, data);
}

bool is_stop_signal(int signal) {
  return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

std::vector<pid_t> threads_of(const ProcFiles& proc, pid_t pid) {
  std::vector<pid_t> threads;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(proc.path(pid, "task"), error)) {
    threads.push_back(std::atoi(entry.path().filename().c_str()));
  }
  return threads;
}

tl::unexpected<Error> seize_error(const ProcFiles& proc, pid_t pid, int error) {
  if (error == ESRCH) return process_error(pid, "", error);
  if (error != EPERM) return system_error(fmt::format("ptrace of PID {}", pid), error);
  if (const auto stat = proc.stat(pid); stat && !stat->has_memory()) {
    return tl::make_unexpected(no_memory_error(pid, *stat));
  }
  const auto tracer = static_cast<pid_t>(proc.status_number(pid, "TracerPid"));
  if (tracer == 0) {
    return make_error(ErrorCode::permission_denied,
                      fmt::format("PID {}: not permitted to trace it", pid));
  }
  const auto stat = proc.stat(tracer);
  return make_error(ErrorCode::permission_denied,
                    fmt::format("PID {}: is traced by PID {} ({}) already", pid, tracer,
                                stat ? stat->comm : "?"));
}

}  // namespace

ExitStops::ExitStops(Events events, pid_t own_child, ProcFiles proc)
    : events_(std::move(events)), own_child_(own_child), proc_(std::move(proc)) {}

Expected<void> ExitStops::seize(pid_t pid) {
  constexpr std::uintptr_t kOptions = PTRACE_O_TRACEEXIT | PTRACE_O_TRACEFORK |
                                      PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                                      PTRACE_O_TRACEEXEC;
  int error = ESRCH;
  // A thread that is not attached yet may start another.
  for (bool found = true; found;) {
    found = false;
    for (const pid_t task : threads_of(proc_, pid)) {
      if (processes_.contains(task)) continue;
      if (request(PTRACE_SEIZE, task, kOptions) == 0) {
        processes_[task] = pid;
        running_[pid].insert(task);
        found = true;
      } else if (errno != ESRCH) {
        error = errno;
      }
    }
  }
  // A first thread that has ended, and a thread that ends, cannot be attached.
  if (running_.contains(pid)) return {};
  return seize_error(proc_, pid, error);
}

pid_t ExitStops::process_of(pid_t task) const {
  const auto process = processes_.find(task);
  return process == processes_.end() ? 0 : process->second;
}

// A thread or a process that the kernel has attached: seen by its first stop, or told by the event
// of who made it, whichever comes first.  By the time of the second it may have ended.
void ExitStops::arrive(pid_t task, pid_t forked_by) {
  if (task <= 0 || processes_.contains(task)) return;
  const auto pid = static_cast<pid_t>(proc_.status_number(task, "Tgid"));
  if (pid == 0) return;
  if (forked_by == 0) not_told_.insert(task);
  processes_[task] = pid;
  running_[pid].insert(task);
  if (pid != task) return;
  const std::uint64_t begin = monotonic_ns();
  events_.started(
      pid, forked_by != 0 ? forked_by : static_cast<pid_t>(proc_.status_number(pid, "PPid")));
  held_ns_ += monotonic_ns() - begin;
}

// The end of all threads wakes those that are stopped at their exits, whether we have seen that or
// not: the first, say, which then waits for the others to be gone.
void ExitStops::forget_ended(std::set<pid_t>& tasks) const {
  while (!tasks.empty()) {
    const auto stat = proc_.stat(*tasks.begin());
    if (stat && stat->has_memory()) return;
    tasks.erase(tasks.begin());
  }
}

void ExitStops::exiting(pid_t task) {
  const pid_t pid = process_of(task);
  const auto running = running_.find(pid);
  if (running != running_.end()) {
    running->second.erase(task);
    forget_ended(running->second);
    if (running->second.empty()) {
      running_.erase(running);
      const std::uint64_t begin = monotonic_ns();
      events_.exiting(pid, task);
      held_ns_ += monotonic_ns() - begin;
    }
  }
  // Killed meanwhile, it is no longer stopped: its end is handled by gone().
  if (request(PTRACE_DETACH, task) == 0) processes_.erase(task);
}

// A thread that executes a program has taken the place of the first; all the others have ended.
void ExitStops::executed(pid_t pid) {
  unsigned long former = 0;
  if (request(PTRACE_GETEVENTMSG, pid, reinterpret_cast<std::uintptr_t>(&former)) == 0) {
    processes_.erase(static_cast<pid_t>(former));
  }
  processes_[pid] = pid;
  running_[pid] = {pid};
  const std::uint64_t begin = monotonic_ns();
  events_.executed(pid);
  held_ns_ += monotonic_ns() - begin;
}

void ExitStops::gone(pid_t task) {
  const pid_t pid = process_of(task);
  processes_.erase(task);
  const auto running = running_.find(pid);
  if (running == running_.end()) return;
  running->second.erase(task);
  if (!running->second.empty()) return;
  running_.erase(running);
  events_.missed(pid);
}

void ExitStops::handle_stop(pid_t task, int status) {
  const int signal = WSTOPSIG(status);
  const int event = status >> kEventShift;
  arrive(task, 0);
  switch (event) {
    case 0:  // about to be delivered
      request(PTRACE_CONT, task, static_cast<std::uintptr_t>(signal));
      return;
    case PTRACE_EVENT_EXIT: exiting(task); return;
    case PTRACE_EVENT_EXEC: executed(task); break;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE: {
      unsigned long made = 0;
      if (request(PTRACE_GETEVENTMSG, task, reinterpret_cast<std::uintptr_t>(&made)) == 0 &&
          not_told_.erase(static_cast<pid_t>(made)) == 0) {
        arrive(static_cast<pid_t>(made), process_of(task));
      }
      break;
    }
    case PTRACE_EVENT_STOP:
      if (is_stop_signal(signal)) {
        request(PTRACE_LISTEN, task);
        return;
      }
      break;
    default: break;
  }
  request(PTRACE_CONT, task);
}

bool ExitStops::handle_one() {
  constexpr int kWhich = WEXITED | WSTOPPED | WNOHANG | __WALL | __WNOTHREAD;
  siginfo_t info{};
  if (::waitid(P_ALL, 0, &info, kWhich | WNOWAIT) != 0 || info.si_pid == 0) return false;
  const bool has_ended =
      info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
  if (has_ended && info.si_pid == own_child_) {
    gone(own_child_);
    return false;
  }
  int status = 0;
  if (::waitpid(info.si_pid, &status, WNOHANG | __WALL | __WNOTHREAD) != info.si_pid) return true;
  if (WIFSTOPPED(status)) {
    handle_stop(info.si_pid, status);
  } else {
    gone(info.si_pid);
  }
  return true;
}

}  // namespace cowshed::cow
