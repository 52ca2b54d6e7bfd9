#include <algorithm>
#include <cerrno>
#include <csignal>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/base/exception_text.h>
#include <cowshed/base/try.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/workers.h>
#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/launch.h>

// The workers of one start(): how they are started, waited for, restarted and stopped.
namespace cowshed {
namespace internal {

using launch::Child;
using launch::Launch;

namespace {

// A forkserver that runs reports an ended worker at once, on a busy machine somewhat later.
constexpr std::chrono::milliseconds kReportPatience(100);
constexpr std::chrono::milliseconds kLastPatience(1000);  // then the exit status is lost

}  // namespace

StartedWorkers::StartedWorkers(const WorkersOptions& options, WorkerTask task)
    : launch_(std::make_unique<Launch>()), owner_(getpid()) {
  launch_->options = options;
  launch_->options.name = without_controls(options.name);  // messages have one line
  launch_->task = std::move(task);
}

// Allocates nothing: a destructor must not throw.
StartedWorkers::~StartedWorkers() {
  if (getpid() != owner_) return;
  for (Child& child : children_) {
    if (!child.running()) continue;
    if (!launch::send_signal(child.exit.pid, child.pidfd, SIGKILL))
      child.pidfd = FileDescriptor();  // another user's: let it run
  }
  const auto patience = Clock::now() + kReportPatience;
  for (const Child& child : children_) {
    if (!child.running()) continue;
    siginfo_t info = {};
    if (launch_->options.method != Start::forkserver) {
      TEMP_FAILURE_RETRY(waitid(P_PIDFD, static_cast<id_t>(child.pidfd.get()), &info, WEXITED));
    } else {
      // The forkserver reaps it, and then closes its end of the socket.
      (void)is_ready(child.pidfd.get(), POLLIN, -1);
      (void)is_ready(child.socket.get(), 0, launch::milliseconds_until(patience));
    }
  }
}

Expected<void> StartedWorkers::start() {
  const auto started = launch::prepare(*launch_).and_then([&] { return start_all(); });
  launch_->task.arguments = nullptr;  // it refers to the caller's arguments
  if (launch_->options.restarts == 0) {
    launch_->task.body = nullptr;  // so does this, unless it may be called again
    launch_->job = {};
    launch_->arenas = {};
  }
  return started.map_error([&](const Error& error) { return named(error); });
}

Expected<void> StartedWorkers::start_all() {
  const int count = launch_->options.count;
  children_.reserve(static_cast<std::size_t>(count));
  Expected<void> all;
  for (int rank = 0; rank < count && all; ++rank)
    all = start_one(rank).map([&](Child&& child) { children_.push_back(std::move(child)); });
  if (launch_->options.method == Start::forkserver) {
    for (Child& child : children_) {  // also those that were requested before another one failed
      // After an error none shall run.
      const auto patience = all ? launch_->options.start_timeout : std::chrono::milliseconds(0);
      auto started = launch::await_start(*launch_, child, Clock::now() + patience);
      all = all ? started : all;
    }
  }
  return all;
}

Expected<Child> StartedWorkers::start_one(int rank) {
  switch (launch_->options.method) {
    case Start::fork: return launch::fork_worker(*launch_, rank);
    case Start::spawn: return launch::spawn_worker(*launch_, rank);
    case Start::forkserver: return launch::request_worker(*launch_, rank);
  }
  return make_error(ErrorCode::invalid_argument, ".method is none");
}

Expected<void> StartedWorkers::restart(int rank) {
  return start_again(child_at(rank)).map_error([&](Error error) {
    return named(std::move(error));
  });
}

Expected<void> StartedWorkers::start_again(Child& child) {
  const WorkersOptions& options = launch_->options;
  if (options.method == Start::fork && options.threads == Threads::refuse)
    TRY_VOID(launch::check_threads("fork of a worker again"));
  TRY(Child next, start_one(child.exit.rank));
  next.exit.restarts = child.exit.restarts + 1;
  if (options.method == Start::forkserver)
    TRY_VOID(launch::await_start(*launch_, next, Clock::now() + options.start_timeout));
  child = std::move(next);
  return {};
}

Expected<std::vector<WorkerEnd>> StartedWorkers::wait() {
  TRY_VOID(reap_until(children_, Clock::time_point::max(), Restart::if_failed));
  return ends();
}

Expected<std::vector<WorkerEnd>> StartedWorkers::wait_for(std::chrono::milliseconds timeout) {
  TRY_VOID(wait_for(children_, timeout));
  return ends();
}

Expected<std::vector<WorkerEnd>> StartedWorkers::stop(Clock::time_point deadline) {
  for (Child& child : children_) child.may_need_restart = false;
  TRY_VOID(signal_all(SIGTERM));
  TRY_VOID(reap_until(children_, deadline, Restart::no));
  for (Child& child : children_) child.killed = true;
  TRY_VOID(signal_all(SIGKILL));
  TRY_VOID(reap_until(children_, Clock::time_point::max(), Restart::no));
  return ends();
}

Expected<std::vector<WorkerEnd>> StartedWorkers::reap_ended() {
  TRY(const auto ranks, reap_some(Clock::now()));
  std::vector<WorkerEnd> ended;
  for (const int rank : ranks) {
    child_at(rank).may_need_restart = false;  // the caller decides
    ended.push_back(end_of(child_at(rank), true));
  }
  return ended;
}

Expected<void> StartedWorkers::wait_for(std::span<Child> awaited,
                                        std::chrono::milliseconds timeout) {
  const auto now = Clock::now();
  const auto most = std::chrono::floor<std::chrono::milliseconds>(Clock::time_point::max() - now);
  const auto deadline = timeout < most ? now + std::max(timeout, {}) : Clock::time_point::max();
  TRY_VOID(reap_until(awaited, deadline, Restart::if_failed));
  std::string running;
  for (const Child& child : awaited) {
    if (child.running()) {
      running += (running.empty() ? "" : ", ") + std::to_string(child.exit.rank) + " (pid " +
                 std::to_string(child.exit.pid) + ")";
    }
  }
  if (running.empty()) return {};
  return make_error(ErrorCode::timed_out, named("after " + std::to_string(timeout.count()) +
                                                " ms these still run: " + running));
}

// Reaps workers as they end, until all that are awaited have ended or until the deadline.
Expected<void> StartedWorkers::reap_until(std::span<Child> awaited, Clock::time_point deadline,
                                          Restart restarting) {
  const bool may_restart = restarting == Restart::if_failed;
  if (may_restart) TRY_VOID(restart_failed());  // those that an earlier call could not restart
  while (std::ranges::any_of(awaited, &Child::running)) {
    TRY_VOID(reap_some(deadline));
    if (may_restart) TRY_VOID(restart_failed());
    if (deadline <= Clock::now()) break;
  }
  return {};
}

// Tries all; returns the first error.  A later call tries those again that could not be restarted.
Expected<void> StartedWorkers::restart_failed() {
  Expected<void> all;
  for (Child& child : children_) {
    if (!child.may_need_restart) continue;
    child.may_need_restart = child.exit.restarts < launch_->options.restarts &&
                             !describe_end(*launch_, child, launch_->task.returns_value).empty();
    if (!child.may_need_restart) continue;
    auto restarted = restart(child.exit.rank);
    all = all ? restarted : all;
  }
  return all;
}

// Waits until a worker has ended, or until the deadline.  Returns the ranks of those that ended.
Expected<std::vector<int>> StartedWorkers::reap_some(Clock::time_point deadline) {
  std::vector<pollfd> running;
  std::vector<int> ranks;
  for (const Child& child : children_) {
    if (child.running()) {
      running.push_back({child.pidfd.get(), POLLIN, 0});
      ranks.push_back(child.exit.rank);
    }
  }
  const auto start_timeout = next_start_timeout();
  const int timeout = launch::milliseconds_until(std::min(deadline, start_timeout));
  if (poll(running.data(), running.size(), timeout) < 0 && errno != EINTR)
    return system_error(named("poll"), errno);
  std::vector<int> ended;
  ended.reserve(running.size());  // no end is lost if memory is short
  for (std::size_t i = 0; i < running.size(); ++i) {
    if (running[i].revents == 0) continue;
    TRY(const bool is_over, reap(child_at(ranks[i]), deadline));
    if (is_over) ended.push_back(ranks[i]);
  }
  if (start_timeout <= Clock::now()) TRY_VOID(kill_late_starters());
  return ended;
}

// Returns false if the forkserver of an ended worker has not reported the end by the deadline.
Expected<bool> StartedWorkers::reap(Child& child, Clock::time_point deadline) {
  child.read_messages();
  if (launch_->options.method == Start::forkserver) {
    const auto now = Clock::now();
    TRY(const bool is_reported,
        launch::await_end(
            *launch_, child,
            child.killed ? now + kLastPatience : std::max(now + kReportPatience, deadline)));
    if (!is_reported && !child.killed) return false;
  } else {
    siginfo_t info = {};
    if (TEMP_FAILURE_RETRY(waitid(P_PIDFD, static_cast<id_t>(child.pidfd.get()), &info, WEXITED)) !=
        0) {
      return system_error(named("waitid of pid " + std::to_string(child.exit.pid)), errno);
    }
    child.set_end(info.si_code, info.si_status);
  }
  child.pidfd = FileDescriptor();
  child.socket = FileDescriptor();
  child.may_need_restart = true;
  return true;
}

// When the first spawned worker that has not begun must be killed.
StartedWorkers::Clock::time_point StartedWorkers::next_start_timeout() const {
  auto next = Clock::time_point::max();
  if (launch_->options.method == Start::spawn) {
    for (const Child& child : children_)
      if (child.running() && !child.begun && !child.timed_out)
        next = std::min(next, child.started + launch_->options.start_timeout);
  }
  return next;
}

Expected<void> StartedWorkers::kill_late_starters() {
  const auto started_before = Clock::now() - launch_->options.start_timeout;
  for (Child& child : children_) {
    if (!child.running() || child.begun || child.started > started_before) continue;
    child.read_messages();
    if (!child.begun) {
      child.timed_out = true;
      TRY_VOID(send_signal(child, SIGKILL));
    }
  }
  return {};
}

// Sends to all that run; returns the first error.
Expected<void> StartedWorkers::signal_all(int signal) const {
  Expected<void> all;
  for (const Child& child : children_) {
    auto sent = send_signal(child, signal);
    all = all ? sent : all;
  }
  return all;
}

Expected<void> StartedWorkers::send_signal(const Child& child, int signal) const {
  if (!child.running()) return {};
  return launch::send_signal(child.exit.pid, child.pidfd, signal).map_error([&](Error error) {
    return named(std::move(error));
  });
}

std::vector<WorkerEnd> StartedWorkers::ends() {
  std::vector<WorkerEnd> ends;
  ends.reserve(children_.size());
  for (Child& child : children_) ends.push_back(end_of(child, launch_->task.returns_value));
  return ends;
}

WorkerEnd StartedWorkers::end_of(Child& child, bool must_return) const {
  WorkerEnd end;
  end.exit = child.exit;
  end.exit.error = describe_end(*launch_, child, must_return);
  if (must_return && child.value && !child.handed_out) {
    Content& bytes = *child.value;
    end.value_bytes = bytes.file() ? bytes.file_bytes() : bytes.inline_bytes().size();
    end.value.emplace(std::shared_ptr<Content>(std::shared_ptr<void>(), &bytes));  // borrowed
  }
  return end;
}

void StartedWorkers::drop_values() noexcept {
  for (Child& child : children_) {
    if (!child.value) continue;
    *child.value = {};
    child.handed_out = true;
  }
}

std::vector<WorkerProcess> StartedWorkers::processes() {
  std::vector<WorkerProcess> processes;
  for (const Child& child : children_) processes.emplace_back(*this, child.exit.rank);
  return processes;
}

const std::string& StartedWorkers::name() const { return launch_->options.name; }

Child& StartedWorkers::child_at(int rank) { return children_[static_cast<std::size_t>(rank)]; }

std::string StartedWorkers::named(const std::string& what) const {
  return "workers '" + name() + "': " + what;
}

Error StartedWorkers::named(Error error) const {
  error.message = named(error.message);
  return error;
}

Expected<WorkersHandle> start_workers(const WorkersOptions& options, WorkerTask task) {
  if (thread_scope.end != 0) {
    return make_error(ErrorCode::in_use,
                      "workers '" + options.name +
                          "' are started in an ArenaScope, in whose arena they and all that they "
                          "are given would lie; end the scope first");
  }
  auto workers = std::make_unique<StartedWorkers>(options, std::move(task));
  TRY_VOID(workers->start());
  return workers;
}

Expected<void> check_inheritable(const void* object) {
  const ArenaCore* arena = find_arena(object);
  if (arena != nullptr && reinterpret_cast<std::uintptr_t>(object) >= arena->open_begin()) {
    const bool is_first = arena->generation() == 0;
    return make_error(ErrorCode::arena_not_frozen,
                      "arena '" + std::string(arena->name()) +
                          (is_first ? "' is not frozen" : "' is thawed") +
                          ", so that workers would not have the object; " +
                          (is_first ? "freeze" : "refreeze") + "() it before start()");
  }
  return {};
}

tl::unexpected<Error> moved_from_workers_error() {
  return make_error(ErrorCode::invalid_argument,
                    "these workers were moved to another object: ask that one");
}

tl::unexpected<Error> no_copies_error(const std::string& name) {
  return make_error(ErrorCode::invalid_argument,
                    "workers '" + name +
                        "': to start them again, .restarts, their function and arguments must be "
                        "copyable");
}

}  // namespace internal

pid_t WorkerProcess::pid() const { return workers_->child_at(rank_).exit.pid; }

int WorkerProcess::pidfd() const { return workers_->child_at(rank_).pidfd.get(); }

Expected<void> WorkerProcess::send_signal(int signal) const {
  return workers_->send_signal(workers_->child_at(rank_), signal);
}

Expected<WorkerExit> WorkerProcess::wait_for(std::chrono::milliseconds timeout) const {
  launch::Child& child = workers_->child_at(rank_);
  TRY_VOID(workers_->wait_for(std::span(&child, 1), timeout));
  WorkerExit exit = child.exit;
  exit.error = describe_end(*workers_->launch_, child, workers_->launch_->task.returns_value);
  return exit;
}

}  // namespace cowshed
