#include <algorithm>
#include <cerrno>
#include <csignal>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/base/try.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/workers.h>
#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/launch.h>

namespace cowshed {
namespace {

using Clock = std::chrono::steady_clock;
using internal::WorkerEnd;
using launch::Child;
using launch::Launch;

enum class Again : std::uint8_t { never, if_failed };

class State : public internal::StartedWorkers {
 public:
  // Errors have its name already.
  Expected<void> start(const WorkersOptions& options, internal::WorkerBody body,
                       const internal::WorkerJob& job);
  ~State() override {
    if (getpid() == owner_) {
      abandon_unkillable();
      (void)reap_until(Clock::time_point::max(), Again::never, false);
    }
  }

  Expected<std::vector<WorkerEnd>> wait(bool with_values) override;
  Expected<std::vector<WorkerEnd>> stop(Clock::time_point deadline, bool with_values) override;
  Expected<std::vector<WorkerEnd>> reap_ended() override;
  Expected<void> restart(int rank) override;
  const std::string& name() const override { return launch_.name; }
  std::vector<pid_t> pids() const override;
  std::vector<int> pidfds() const override;

 private:
  Expected<void> signal_all(int signal) const;  // to those that run; the first error
  // SIGKILL to all; those that cannot be killed, because they are another user's by now, are not
  // waited for.
  void abandon_unkillable();
  Expected<Child> start_one(int rank);
  Expected<void> start_all();
  Expected<void> start_again(int rank);
  Expected<void> await_started(Child& child) const;
  Expected<void> reap(Child& child);
  // Waits for one, until the deadline; the ranks of those that had ended.
  Expected<std::vector<int>> reap_some(Clock::time_point deadline);
  bool any_running() const;
  // Until the deadline, when some may still run.
  Expected<void> reap_until(Clock::time_point deadline, Again again, bool with_values);
  Expected<void> kill_late_ones();
  Clock::time_point next_timeout() const;
  WorkerEnd end_of(int rank, bool with_value);
  std::vector<WorkerEnd> ends(bool with_values);
  std::string who(const std::string& what) const {
    return "workers '" + launch_.name + "': " + what;
  }
  Error error_of(Error error) const {
    error.message = who(error.message);
    return error;
  }

  Launch launch_;
  WorkersOptions options_;
  pid_t owner_ = getpid();
  std::vector<Child> children_;
};

Expected<void> State::signal_all(int signal) const {
  Expected<void> all;
  for (const Child& child : children_) {
    if (child.running()) {
      auto sent = launch::send_signal(child.pid, child.pidfd, signal);
      all = all ? sent : all;
    }
  }
  return all.map_error([&](Error error) { return error_of(std::move(error)); });
}

void State::abandon_unkillable() {
  for (Child& child : children_)
    if (child.running() && !launch::send_signal(child.pid, child.pidfd, SIGKILL))
      child.pidfd = FileDescriptor();
}

Expected<Child> State::start_one(int rank) {
  switch (launch_.method) {
    case Start::fork: return launch::fork_worker(launch_, rank);
    case Start::spawn: return launch::spawn_worker(launch_, rank);
    case Start::forkserver: return launch::request_worker(launch_, rank);
  }
  return make_error(ErrorCode::invalid_argument, ".method is none");
}

Expected<void> State::await_started(Child& child) const {
  const auto is_open = [&] {
    return launch_.method == Start::forkserver && !child.running() && !child.refused &&
           !child.reported;
  };
  for (bool told = true; told && is_open();) {
    told = launch_.server->wait_readable(child.socket.get());
    child.read_messages();
    told = told && !launch_.server->ended();
  }
  if (is_open()) {
    // A worker that it forked last is about to say so; if there is none nobody has its end of the
    // socket, and this does not wait.
    pollfd worker = {child.socket.get(), POLLIN, 0};
    TEMP_FAILURE_RETRY(poll(&worker, 1, static_cast<int>(launch_.start_timeout.count())));
    child.read_messages();
  }
  if (is_open()) {
    return make_error(ErrorCode::forkserver_ended,
                      "the forkserver " + launch_.server->how_it_ended());
  }
  if (child.refused)
    return make_error(ErrorCode::system_call, "the forkserver says: " + *child.refused);
  if (launch_.method == Start::forkserver && !child.running()) {
    return make_error(ErrorCode::system_call, child.unread.empty()
                                                  ? "the worker was killed before it began"
                                                  : child.unread);
  }
  return {};
}

Expected<void> State::start_all() {
  children_.reserve(static_cast<std::size_t>(launch_.count));
  Expected<void> all;
  for (int rank = 0; rank < launch_.count && all; ++rank)
    all = start_one(rank).map([&](Child&& child) { children_.push_back(std::move(child)); });
  for (Child& child : children_) {  // those that were asked for before another failed, too
    auto started = await_started(child);
    all = all ? started : all;
  }
  return all;
}

Expected<void> State::restart(int rank) {
  return start_again(rank).map_error([&](Error error) { return error_of(std::move(error)); });
}

Expected<void> State::start_again(int rank) {
  Child& child = children_[static_cast<std::size_t>(rank)];
  if (launch_.method == Start::fork && options_.threads == Threads::refuse)
    TRY_VOID(launch::check_threads("fork of a worker again"));
  TRY(Child next, start_one(rank));
  next.restarts = child.restarts + 1;
  TRY_VOID(await_started(next));
  child = std::move(next);
  return {};
}

Expected<void> State::reap(Child& child) {
  child.read_messages();
  if (launch_.method == Start::forkserver) {
    for (bool told = true; told && !child.reported;) {
      told = launch_.server->wait_readable(child.socket.get()) && !launch_.server->ended();
      child.read_messages();
    }
  } else {
    siginfo_t info = {};
    if (TEMP_FAILURE_RETRY(waitid(P_PIDFD, static_cast<id_t>(child.pidfd.get()), &info, WEXITED)) !=
        0) {
      return system_error(who("waitid of pid " + std::to_string(child.pid)), errno);
    }
    child.read_messages();
    child.set_end(info.si_code, info.si_status);
  }
  child.pidfd = FileDescriptor();
  child.socket = FileDescriptor();
  return {};
}

Clock::time_point State::next_timeout() const {
  auto next = Clock::time_point::max();
  if (launch_.method == Start::spawn) {
    for (const Child& child : children_)
      if (child.running() && !child.begun && !child.timed_out)
        next = std::min(next, child.started + launch_.start_timeout);
  }
  return next;
}

Expected<void> State::kill_late_ones() {
  for (Child& child : children_) {
    if (!child.running() || child.begun || child.started + launch_.start_timeout > Clock::now())
      continue;
    child.read_messages();
    if (!child.begun) {
      child.timed_out = true;
      TRY_VOID(launch::send_signal(child.pid, child.pidfd, SIGKILL).map_error([&](Error error) {
        return error_of(std::move(error));
      }));
    }
  }
  return {};
}

Expected<std::vector<int>> State::reap_some(Clock::time_point deadline) {
  std::vector<pollfd> running;
  std::vector<int> ranks;
  for (std::size_t i = 0; i < children_.size(); ++i) {
    if (children_[i].running()) {
      running.push_back({children_[i].pidfd.get(), POLLIN, 0});
      ranks.push_back(static_cast<int>(i));
    }
  }
  const auto timeout = next_timeout();
  const auto until = std::min(deadline, timeout);
  int milliseconds = -1;
  if (until != Clock::time_point::max()) {
    const auto now = Clock::now();
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(std::max(until, now) - now);
    milliseconds = static_cast<int>(std::min<std::int64_t>(left.count(), 1'000'000));
  }
  if (poll(running.data(), running.size(), milliseconds) < 0 && errno != EINTR)
    return system_error(who("poll"), errno);
  std::vector<int> ended;
  for (std::size_t i = 0; i < running.size(); ++i) {
    if (running[i].revents == 0) continue;
    TRY_VOID(reap(children_[static_cast<std::size_t>(ranks[i])]));
    ended.push_back(ranks[i]);
  }
  if (timeout <= Clock::now()) TRY_VOID(kill_late_ones());
  return ended;
}

bool State::any_running() const {
  return std::any_of(children_.begin(), children_.end(),
                     [](const Child& child) { return child.running(); });
}

Expected<void> State::reap_until(Clock::time_point deadline, Again again, bool with_values) {
  while (any_running()) {
    TRY(const auto ended, reap_some(deadline));
    for (const int rank : ended) {
      const Child& child = children_[static_cast<std::size_t>(rank)];
      if (again == Again::if_failed && child.restarts < options_.restarts &&
          !describe_end(launch_, rank, child, with_values).empty()) {
        TRY_VOID(restart(rank));
      }
    }
    if (deadline <= Clock::now()) break;
  }
  return {};
}

WorkerEnd State::end_of(int rank, bool with_value) {
  Child& child = children_[static_cast<std::size_t>(rank)];
  WorkerEnd end;
  end.exit.rank = rank;
  end.exit.pid = child.pid;
  end.exit.exit_code = child.exit_code;
  end.exit.signal = child.signal;
  end.exit.error = describe_end(launch_, rank, child, with_value);
  end.exit.start_ns = child.start_ns;
  end.exit.restarts = child.restarts;
  if (with_value && child.value) {
    const internal::Content& bytes = *child.value;
    end.value_bytes = bytes.file() ? bytes.file_bytes() : bytes.inline_bytes().size();
    end.value = std::make_shared<Decoder>(std::exchange(*child.value, {}));
  }
  return end;
}

std::vector<WorkerEnd> State::ends(bool with_values) {
  std::vector<WorkerEnd> ends;
  for (std::size_t i = 0; i < children_.size(); ++i)
    ends.push_back(end_of(static_cast<int>(i), with_values));
  return ends;
}

Expected<std::vector<WorkerEnd>> State::wait(bool with_values) {
  TRY_VOID(reap_until(Clock::time_point::max(), Again::if_failed, with_values));
  return ends(with_values);
}

Expected<std::vector<WorkerEnd>> State::stop(Clock::time_point deadline, bool with_values) {
  TRY_VOID(signal_all(SIGTERM));
  TRY_VOID(reap_until(deadline, Again::never, with_values));
  TRY_VOID(signal_all(SIGKILL));
  TRY_VOID(reap_until(Clock::time_point::max(), Again::never, with_values));
  return ends(with_values);
}

Expected<std::vector<WorkerEnd>> State::reap_ended() {
  TRY(const auto ranks, reap_some(Clock::now()));
  std::vector<WorkerEnd> ended;
  for (const int rank : ranks) ended.push_back(end_of(rank, true));
  return ended;
}

std::vector<pid_t> State::pids() const {
  std::vector<pid_t> result;
  for (const Child& child : children_) result.push_back(child.pid);
  return result;
}

std::vector<int> State::pidfds() const {
  std::vector<int> result;
  for (const Child& child : children_) result.push_back(child.pidfd.get());
  return result;
}

Expected<void> State::start(const WorkersOptions& options, internal::WorkerBody body,
                            const internal::WorkerJob& job) {
  options_ = options;
  launch_.name = options_.name;
  launch_.start_timeout = launch::bounded(options_.start_timeout);
  const auto started = launch::prepare(options_, job, launch_).and_then([&] {
    launch_.body = std::move(body);
    return start_all();
  });
  if (options_.restarts == 0) {  // the body refers to the caller's arguments
    launch_.body = nullptr;
    launch_.job = {};
    launch_.arenas = {};
  }
  return started.map_error([&](const Error& error) { return error_of(error); });
}

}  // namespace

Expected<internal::WorkersHandle> internal::start_workers(const WorkersOptions& options,
                                                          WorkerBody body, const WorkerJob& job) {
  if (thread_scope.end != 0) {
    return make_error(ErrorCode::in_use,
                      "workers '" + options.name +
                          "' are started in an ArenaScope, in whose arena they and all that they "
                          "are given would lie; end the scope first");
  }
  auto state = std::make_unique<State>();
  TRY_VOID(state->start(options, std::move(body), job));
  return state;
}

tl::unexpected<Error> internal::moved_from_error() {
  return make_error(ErrorCode::invalid_argument,
                    "these workers were moved to another object: ask that one");
}

tl::unexpected<Error> internal::no_copies_error(const std::string& name) {
  return make_error(ErrorCode::invalid_argument,
                    "workers '" + name +
                        "': to start them again, .restarts, their function and arguments must be "
                        "copyable");
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
