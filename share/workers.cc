#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <cxxabi.h>
#include <exception>
#include <iostream>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/arena_table.h>
#include <cowshed/share/stray_write.h>
#include <cowshed/share/workers.h>

namespace cowshed {
namespace {

using Clock = std::chrono::steady_clock;

// What a worker leaves behind, in memory shared with its parent: one page each.
struct alignas(4096) Report {
  enum class Kind : std::uint8_t { nothing, exception, stray_write };
  std::atomic<Kind> kind;
  StrayWrite stray_write;
  std::array<char, 2048> text;  // ends in '\0'
};

struct Child {
  pid_t pid = 0;
  int pidfd = -1;
  std::uint64_t fork_ns = 0;
};

// In a worker; a process that it forks in turn has them too, and must not report as the worker.
Report* own_report = nullptr;
pid_t own_pid = 0;

// Standard streams only: fflush(nullptr) waits for a thread that sits in a read of any stream.
void flush_streams() {
  std::cout.flush();
  std::cerr.flush();
  std::clog.flush();
  (void)std::fflush(stdout);
  (void)std::fflush(stderr);
}

void leave_text(std::string_view text) {
  if (getpid() != own_pid) {
    return;
  }
  auto& line = own_report->text;
  const std::size_t length = std::min(text.size(), line.size() - 1);
  std::replace_copy_if(
      text.begin(), text.begin() + static_cast<std::ptrdiff_t>(length), line.begin(),
      [](char c) { return std::iscntrl(static_cast<unsigned char>(c)) != 0; }, ' ');
  own_report->kind = Report::Kind::exception;
}

int run_body(const std::function<int(const Worker&)>& body, const Worker& self) {
  try {
    return body(self);
  } catch (const std::exception& failure) {
    leave_text(failure.what());
  } catch (const abi::__forced_unwind&) {
    // Must not be swallowed, nor go on into the frames of the parent: the worker ends here.
    leave_text("ended by pthread_exit()");
    flush_streams();
    _exit(1);
  } catch (...) {
    leave_text("an exception that is no std::exception");
  }
  return 1;
}

[[noreturn]] void run_worker(const WorkersOptions& options, pid_t parent, Report* report,
                             const Worker& self, const std::function<int(const Worker&)>& body) {
  if (options.die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
      _exit(1);
    }  // it ended before the call above
  }
  own_report = report;
  own_pid = getpid();
  internal::set_stray_write_sink(&report->stray_write,
                                 []() noexcept { own_report->kind = Report::Kind::stray_write; });
  const int code = run_body(body, self);
  flush_streams();
  _exit(code);
}

}  // namespace

struct Workers::State {
  std::string name;
  pid_t owner = getpid();
  Report* reports = nullptr;
  std::size_t reports_size = 0;
  std::vector<Child> children;
  std::vector<WorkerExit> exits;  // as far as reaped; by rank

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (getpid() == owner) {
      signal_all(SIGKILL);
      (void)reap_all();
    }
    close_all();
    munmap(reports, reports_size);
  }

  void close_all() {
    for (auto& child : children) {
      if (child.pidfd >= 0) {
        close(std::exchange(child.pidfd, -1));
      }
    }
  }

  void signal_all(int signal) const {
    for (const auto& child : children) {
      if (child.pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, child.pidfd, signal, nullptr, 0);
      }
    }
  }

  Expected<void> fork_all(const WorkersOptions& options,
                          const std::function<int(const Worker&)>& body);
  Expected<void> reap_all();
  void wait_until(Clock::time_point deadline) const;
  std::string describe(int rank, const siginfo_t& info) const;
};

Expected<void> Workers::State::fork_all(const WorkersOptions& options,
                                        const std::function<int(const Worker&)>& body) {
  const auto count = static_cast<std::size_t>(options.count);
  reports_size = count * sizeof(Report);
  void* memory =
      mmap(nullptr, reports_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    reports_size = 0;
    return system_error("workers '" + name + "': memory for their reports", errno);
  }
  reports = static_cast<Report*>(memory);
  children.reserve(count);
  exits.resize(count);
  flush_streams();
  for (int rank = 0; rank < options.count; ++rank) {
    const auto before = Clock::now();
    const pid_t pid = fork();
    if (pid == 0) {
      close_all();
      run_worker(options, owner, reports + rank, {rank, options.count}, body);
    }
    const auto after = Clock::now();
    if (pid < 0) {
      return system_error("workers '" + name + "': fork", errno);
    }
    Child& child = children.emplace_back();
    child.pid = pid;
    child.fork_ns = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(after - before).count());
    child.pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));  // CLOEXEC by itself
    if (child.pidfd < 0) {
      const int error = errno;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
      children.pop_back();
      return system_error("workers '" + name + "': pidfd_open", error);
    }
  }
  return {};
}

Expected<void> Workers::State::reap_all() {
  for (std::size_t i = 0; i < children.size(); ++i) {
    Child& child = children[i];
    if (child.pidfd < 0) {
      continue;
    }
    siginfo_t info = {};
    int result = 0;
    do {
      result = waitid(P_PIDFD, static_cast<id_t>(child.pidfd), &info, WEXITED);
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
      return system_error("workers '" + name + "': waiting for pid " + std::to_string(child.pid),
                          errno);
    }
    close(std::exchange(child.pidfd, -1));
    WorkerExit& exit = exits[i];
    exit.rank = static_cast<int>(i);
    exit.pid = child.pid;
    exit.fork_ns = child.fork_ns;
    if (info.si_code == CLD_EXITED) {
      exit.exit_code = info.si_status;
    } else {
      exit.signal = info.si_status;
    }
    exit.error = describe(exit.rank, info);
  }
  return {};
}

std::string Workers::State::describe(int rank, const siginfo_t& info) const {
  const bool exited = info.si_code == CLD_EXITED;
  if (exited && info.si_status == 0) {
    return "";
  }
  const Report& report = reports[rank];
  const std::string who = name + " " + std::to_string(rank) + " (pid " +
                          std::to_string(children[static_cast<std::size_t>(rank)].pid) + ")";
  const auto kind = report.kind.load();
  if (kind == Report::Kind::stray_write) {
    return who + " died: " + to_string(report.stray_write);
  }
  if (kind == Report::Kind::exception) {
    return who + ": " + report.text.data();
  }
  if (!exited) {
    return who + " died of signal " + std::to_string(info.si_status) + " (" +
           strsignal(info.si_status) + ")";
  }
  return who + " exited with " + std::to_string(info.si_status);
}

void Workers::State::wait_until(Clock::time_point deadline) const {
  for (const auto& child : children) {
    if (child.pidfd < 0) {
      continue;
    }
    pollfd ended = {child.pidfd, POLLIN, 0};
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
      const auto timeout = std::clamp<std::int64_t>(left.count(), 0, 1'000'000);
      const int ready = poll(&ended, 1, static_cast<int>(timeout));
      if (ready > 0 || timeout == 0) {
        break;
      }
    }
  }
}

Workers::Workers(std::unique_ptr<State> state) : state_(std::move(state)) {}
Workers::Workers(Workers&&) noexcept = default;
Workers& Workers::operator=(Workers&&) noexcept = default;
Workers::~Workers() = default;

Expected<std::vector<WorkerExit>> Workers::wait() {
  return state_->reap_all().map([this] { return state_->exits; });
}

Expected<std::vector<WorkerExit>> Workers::stop(Clock::time_point deadline) {
  state_->signal_all(SIGTERM);
  state_->wait_until(deadline);
  state_->signal_all(SIGKILL);
  return wait();
}

std::vector<pid_t> Workers::pids() const {
  std::vector<pid_t> result;
  for (const auto& child : state_->children) {
    result.push_back(child.pid);
  }
  return result;
}

Expected<Workers> internal::start_workers(const WorkersOptions& options,
                                          const std::function<int(const Worker&)>& body) {
  if (options.count < 1) {
    return make_error(ErrorCode::invalid_argument,
                      "workers '" + options.name + "': .count is at least 1");
  }
  struct sigaction children = {};
  sigaction(SIGCHLD, nullptr, &children);
  if (children.sa_handler == SIG_IGN || (children.sa_flags & SA_NOCLDWAIT) != 0) {
    return make_error(ErrorCode::invalid_argument,
                      "workers '" + options.name +
                          "': SIGCHLD is ignored in this process, so the kernel would throw their "
                          "exit statuses away; give it SIG_DFL or a handler before start()");
  }
  auto state = std::make_unique<Workers::State>();
  state->name = options.name;
  auto started = state->fork_all(options, body);
  if (!started) {
    return tl::make_unexpected(std::move(started.error()));
  }
  return Workers(std::move(state));
}

Expected<void> internal::check_inheritable(const void* object) {
  const ArenaCore* arena = find_arena(object);
  if (arena != nullptr && reinterpret_cast<std::uintptr_t>(object) >= arena->open_begin()) {
    return make_error(ErrorCode::arena_not_frozen,
                      "arena '" + std::string(arena->name()) +
                          "' is not frozen, so that workers would not have it; freeze() it before "
                          "start()");
  }
  return {};
}

}  // namespace cowshed
