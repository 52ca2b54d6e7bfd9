#include <array>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <poll.h>
#include <set>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <system_error>
#include <unistd.h>

#include <cowshed/cow/clock.h>
#include <cowshed/cow/exit_diffs.h>
#include <cowshed/cow/page_map.h>

namespace cowshed::cow {
namespace {

constexpr int kIntervalMs = 20;  // of those that could not be traced
constexpr std::uint64_t kIntervalNs = kIntervalMs * std::uint64_t{1'000'000};

sigset_t child_signal() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGCHLD);
  return set;
}

// Who traces a process already does not keep us from reading its memory; its owner does.
std::string instead_of(pid_t pid) {
  return PageMap::open(ProcFiles(), pid) ? "it is compared at intervals, not at its exit"
                                         : "it is not compared";
}

}  // namespace

ExitDiffs::ExitDiffs(pid_t root, int child_fd, int end_fd)
    : diffs_(root, CopyDiff::Taken::at_exit), child_fd_(child_fd), end_fd_(end_fd) {}

Expected<std::unique_ptr<ExitDiffs>> ExitDiffs::start(pid_t root, Root kind) {
  const sigset_t set = child_signal();
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0) {
    return system_error("pthread_sigmask", error);
  }
  const int child_fd = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (child_fd < 0) return system_error("signalfd", errno);
  const int end_fd = ::eventfd(0, EFD_CLOEXEC);
  if (end_fd < 0) {
    const int error = errno;
    ::close(child_fd);
    return system_error("eventfd", error);
  }
  std::unique_ptr<ExitDiffs> diffs(new ExitDiffs(root, child_fd, end_fd));
  std::promise<void> promise;
  const std::future<void> is_attached = promise.get_future();
  try {
    diffs->tracer_ = std::thread(&ExitDiffs::run, diffs.get(), root, kind, std::move(promise));
  } catch (const std::system_error& error) {
    return system_error("a thread", error.code().value());
  }
  is_attached.wait();
  return diffs;
}

ExitDiffs::~ExitDiffs() {
  Measurement nobodys;
  end(nobodys);
  ::close(child_fd_);
  ::close(end_fd_);
}

// Children that come to be meanwhile are attached by the kernel, or found by the next pass.
void ExitDiffs::attach(ExitStops& stops, pid_t root, Root kind) {
  std::set<pid_t> seen;
  for (bool found = true; found;) {
    found = false;
    for (const pid_t pid : kind == Root::running ? diffs_.alive() : std::vector{root}) {
      if (!seen.insert(pid).second) continue;
      found = true;
      if (const auto seized = stops.seize(pid)) {
        diffs_.follow(pid);
      } else if (seized.error().code != ErrorCode::no_such_process) {
        if (refusal_.empty()) refusal_ = seized.error().message + "; " + instead_of(pid);
        ++summary_.refused;
      }
    }
    if (kind == Root::running) diffs_.find_children();
  }
  if (summary_.refused > 1) {
    refusal_ += fmt::format("; {} more cannot be traced", summary_.refused - 1);
  }
}

void ExitDiffs::run(pid_t root, Root kind, std::promise<void> is_attached) {
  ExitStops stops({.started = [this](pid_t pid, pid_t parent) { diffs_.started(pid, parent); },
                   .executed = [this](pid_t pid) { diffs_.executed(pid); },
                   .exiting =
                       [this](pid_t pid, pid_t task) {
                         diffs_.exiting(pid, task);
                         ++summary_.compared;
                       },
                   .missed =
                       [this](pid_t pid) {
                         diffs_.ended(pid);
                         ++summary_.missed;
                       }},
                  kind == Root::own_child ? root : 0);
  attach(stops, root, kind);
  const bool looks = summary_.refused > 0;
  std::uint64_t next_look_ns = monotonic_ns();
  is_attached.set_value();

  std::array<pollfd, 2> events{{{child_fd_, POLLIN, 0}, {end_fd_, POLLIN, 0}}};
  while ((events[1].revents & POLLIN) == 0) {
    signalfd_siginfo signal;
    while (::read(child_fd_, &signal, sizeof signal) > 0) {
    }
    const bool is_more = stops.handle_one();
    if (looks && monotonic_ns() >= next_look_ns) {
      diffs_.sample();
      next_look_ns = monotonic_ns() + kIntervalNs;
    }
    ::poll(events.data(), events.size(), is_more ? 0 : looks ? kIntervalMs : -1);
  }
  diffs_.compare_alive();
  summary_.held_ns = stops.held_ns();
}

void ExitDiffs::end(Measurement& measurement) {
  if (tracer_.joinable()) {
    ::eventfd_write(end_fd_, 1);
    tracer_.join();
  }
  diffs_.add_to(measurement);
  measurement.exit_diffs = summary_;
}

}  // namespace cowshed::cow
