#include <algorithm>
#include <cerrno>
#include <csignal>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/arena_table.h>
#include <cowshed/share/forkserver_process.h>
#include <cowshed/share/launch.h>
#include <cowshed/share/launched_worker.h>
#include <cowshed/share/malloc_route.h>
#include <cowshed/share/workers.h>

namespace cowshed {
namespace {

using Clock = std::chrono::steady_clock;
using internal::WorkerEnd;
using launch::Child;
using launch::Launch;
using launch::Launched;
using Heard = launch::ForkServerProcess::Heard;

enum class Again : std::uint8_t { never, if_failed };

}  // namespace

struct internal::WorkersHandle::State {
  Launch launch;
  WorkersOptions options;
  pid_t owner = getpid();
  std::vector<Child> children;
  // With a forkserver that is stopped: once for all that have ended.
  std::chrono::milliseconds patience = launch::ForkServerProcess::kPatience;
  std::optional<launch::ClosedInForks> closing;  // last: it is gone before them

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  void forget_job() noexcept;  // none is started any more
  void close_descriptors() noexcept;
  ~State() {
    if (getpid() == owner) {
      abandon_unkillable();
      (void)reap_until(Clock::time_point::max(), Again::never, false);
    }
  }

  Expected<void> signal_all(int signal) const;  // to those that run; the first error
  // SIGKILL to all; those that cannot be killed, because they are another user's by now, are not
  // waited for.
  void abandon_unkillable();
  Expected<Launched> start_one(int rank);
  Expected<void> start_all();
  Expected<void> await_started(Child& child) const;
  Expected<void> restart(int rank);
  Expected<void> reap(Child& child);
  // Waits for one, until the deadline; the ranks of those that had ended.
  Expected<std::vector<int>> reap_ended(Clock::time_point deadline);
  bool any_running() const;
  // False: some still run at the deadline.
  Expected<bool> reap_until(Clock::time_point deadline, Again again, bool with_values);
  Expected<void> kill_late_ones();
  Clock::time_point next_timeout() const;
  WorkerEnd end_of(int rank, bool with_value);
  std::vector<WorkerEnd> ends(bool with_values);
  std::string who(const std::string& what) const {
    return "workers '" + launch.name + "': " + what;
  }
  Error error_of(Error error) const {
    error.message = who(error.message);
    return error;
  }
};

using State = internal::WorkersHandle::State;

namespace {
tl::unexpected<Error> moved_from_error() {
  return make_error(ErrorCode::invalid_argument,
                    "these workers were moved to another object: ask that one");
}
}  // namespace

Expected<void> State::signal_all(int signal) const {
  Expected<void> all;
  for (const Child& child : children) {
    if (child.running()) {
      auto sent = launch::send_signal(child.at.pid, child.at.pidfd, signal);
      all = all ? sent : all;
    }
  }
  return all.map_error([&](Error error) { return error_of(std::move(error)); });
}

void State::abandon_unkillable() {
  for (Child& child : children) {
    if (child.running() && !launch::send_signal(child.at.pid, child.at.pidfd, SIGKILL)) {
      child.at.pidfd = Descriptor();
    }
  }
}

void State::forget_job() noexcept {
  launch.job = {};
  launch.arenas = {};
}

void State::close_descriptors() noexcept {
  forget_job();
  for (Child& child : children) {
    child.at.pidfd = Descriptor();
    child.at.socket = Descriptor();
    child.at.place = Descriptor();
  }
}

Expected<Launched> State::start_one(int rank) {
  switch (launch.method) {
    case Start::fork: return launch::fork_worker(launch, rank);
    case Start::spawn: return launch::spawn_worker(launch, rank);
    case Start::forkserver: return launch::request_worker(launch, rank);
  }
  return make_error(ErrorCode::invalid_argument, ".method is none");
}

Expected<void> State::await_started(Child& child) const {
  const auto is_open = [&] {
    return launch.method == Start::forkserver && !child.running() && !child.refused &&
           !child.reported;
  };
  bool server_ended = false;
  while (is_open() && !server_ended) {
    const Heard heard = launch.server->wait_readable(child.at.socket.get());
    server_ended = heard == Heard::end;
    child.read_messages();
    server_ended = server_ended || launch.server->ended();
    if (heard == Heard::nothing && is_open()) {
      Error stopped = launch.server->stopped_error().value();
      stopped.message = "the forkserver: " + stopped.message;
      return tl::make_unexpected(std::move(stopped));
    }
  }
  if (is_open()) {
    // A worker that it forked last is about to say so; if there is none nobody has its end of the
    // socket, and this does not wait.
    pollfd worker = {child.at.socket.get(), POLLIN, 0};
    while (poll(&worker, 1, static_cast<int>(launch.start_timeout.count())) < 0 && errno == EINTR) {
    }
    child.read_messages();
  }
  if (is_open()) {
    return make_error(ErrorCode::forkserver_ended,
                      "the forkserver " + launch.server->how_it_ended());
  }
  if (child.refused) {
    return make_error(ErrorCode::system_call, "the forkserver says: " + *child.refused);
  }
  if (launch.method == Start::forkserver && !child.running()) {
    return make_error(ErrorCode::system_call, child.unread.empty()
                                                  ? "the worker was killed before it began"
                                                  : child.unread);
  }
  return {};
}

Expected<void> State::start_all() {
  children.reserve(static_cast<std::size_t>(launch.count));
  closing.emplace([](void* state) noexcept { static_cast<State*>(state)->close_descriptors(); },
                  this);
  Expected<void> all;
  for (int rank = 0; rank < launch.count && all; ++rank) {
    auto started = start_one(rank);
    if (started) {
      Child& child = children.emplace_back();
      child.at = std::move(*started);
      child.started = Clock::now();
    } else {
      all = tl::make_unexpected(std::move(started.error()));
    }
  }
  for (Child& child : children) {  // those that were asked for before another failed, too
    auto started = await_started(child);
    all = all ? started : all;
  }
  return all;
}

Expected<void> State::restart(int rank) {
  Child& child = children[static_cast<std::size_t>(rank)];
  Child next;
  next.restarts = child.restarts + 1;
  next.started = Clock::now();
  if (launch.method == Start::fork && options.threads == Threads::refuse) {
    if (auto checked = launch::check_threads("fork of a worker again"); !checked) {
      return tl::make_unexpected(error_of(std::move(checked.error())));
    }
  }
  auto started = start_one(rank);
  if (!started) {
    return tl::make_unexpected(error_of(std::move(started.error())));
  }
  next.at = std::move(*started);
  if (auto awaited = await_started(next); !awaited) {
    return tl::make_unexpected(error_of(std::move(awaited.error())));
  }
  child = std::move(next);
  return {};
}

Expected<void> State::reap(Child& child) {
  child.read_messages();
  if (launch.method == Start::forkserver) {
    while (!child.reported) {
      const Heard heard = launch.server->wait_readable(child.at.socket.get(), patience);
      const bool server_ended = launch.server->ended();  // before that, so that nothing is missed
      child.read_messages();
      if (heard == Heard::nothing) {
        child.untold = true;
        patience = std::chrono::milliseconds(0);
      }
      if (heard != Heard::message || server_ended) {
        break;
      }
    }
  } else {
    siginfo_t info = {};
    while (waitid(P_PIDFD, static_cast<id_t>(child.at.pidfd.get()), &info, WEXITED) != 0) {
      if (errno != EINTR) {
        return system_error(who("waitid of pid " + std::to_string(child.at.pid)), errno);
      }
    }
    child.read_messages();
    child.set_end(info.si_code, info.si_status);
  }
  child.at.pidfd = Descriptor();
  child.at.socket = Descriptor();
  return {};
}

Clock::time_point State::next_timeout() const {
  auto next = Clock::time_point::max();
  if (launch.method == Start::spawn) {
    for (const Child& child : children) {
      if (child.running() && !child.begun && !child.timed_out) {
        next = std::min(next, child.started + launch.start_timeout);
      }
    }
  }
  return next;
}

Expected<void> State::kill_late_ones() {
  for (Child& child : children) {
    if (!child.running() || child.begun || child.started + launch.start_timeout > Clock::now()) {
      continue;
    }
    child.read_messages();
    if (!child.begun) {
      child.timed_out = true;
      if (auto sent = launch::send_signal(child.at.pid, child.at.pidfd, SIGKILL); !sent) {
        return tl::make_unexpected(error_of(std::move(sent.error())));
      }
    }
  }
  return {};
}

Expected<std::vector<int>> State::reap_ended(Clock::time_point deadline) {
  std::vector<pollfd> running;
  std::vector<int> ranks;
  for (std::size_t i = 0; i < children.size(); ++i) {
    if (children[i].running()) {
      running.push_back({children[i].at.pidfd.get(), POLLIN, 0});
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
  if (poll(running.data(), running.size(), milliseconds) < 0 && errno != EINTR) {
    return system_error(who("poll"), errno);
  }
  std::vector<int> ended;
  for (std::size_t i = 0; i < running.size(); ++i) {
    if (running[i].revents == 0) {
      continue;
    }
    if (auto done = reap(children[static_cast<std::size_t>(ranks[i])]); !done) {
      return tl::make_unexpected(std::move(done.error()));
    }
    ended.push_back(ranks[i]);
  }
  if (timeout <= Clock::now()) {
    if (auto killed = kill_late_ones(); !killed) {
      return tl::make_unexpected(std::move(killed.error()));
    }
  }
  return ended;
}

bool State::any_running() const {
  return std::any_of(children.begin(), children.end(),
                     [](const Child& child) { return child.running(); });
}

Expected<bool> State::reap_until(Clock::time_point deadline, Again again, bool with_values) {
  patience = launch::ForkServerProcess::kPatience;
  while (any_running()) {
    const auto ended = reap_ended(deadline);
    if (!ended) {
      return tl::make_unexpected(ended.error());
    }
    for (const int rank : *ended) {
      const Child& child = children[static_cast<std::size_t>(rank)];
      if (again == Again::if_failed && child.restarts < options.restarts &&
          !describe_end(launch, rank, child, with_values).empty()) {
        if (auto restarted = restart(rank); !restarted) {
          return tl::make_unexpected(std::move(restarted.error()));
        }
      }
    }
    if (deadline <= Clock::now()) {
      return !any_running();
    }
  }
  return true;
}

WorkerEnd State::end_of(int rank, bool with_value) {
  Child& child = children[static_cast<std::size_t>(rank)];
  WorkerEnd end;
  end.exit.rank = rank;
  end.exit.pid = child.at.pid;
  end.exit.exit_code = child.exit_code;
  end.exit.signal = child.signal;
  end.exit.error = describe_end(launch, rank, child, with_value);
  end.exit.start_ns = child.at.start_ns;
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
  for (std::size_t i = 0; i < children.size(); ++i) {
    ends.push_back(end_of(static_cast<int>(i), with_values));
  }
  return ends;
}

internal::WorkersHandle::WorkersHandle(std::unique_ptr<State> state) : state_(std::move(state)) {}
internal::WorkersHandle::WorkersHandle(WorkersHandle&&) noexcept = default;
internal::WorkersHandle& internal::WorkersHandle::operator=(WorkersHandle&&) noexcept = default;
internal::WorkersHandle::~WorkersHandle() = default;

Expected<std::vector<WorkerEnd>> internal::WorkersHandle::wait(bool with_values) {
  if (state_ == nullptr) {
    return moved_from_error();
  }
  return state_->reap_until(Clock::time_point::max(), Again::if_failed, with_values).map([&](bool) {
    return state_->ends(with_values);
  });
}

Expected<std::vector<WorkerEnd>> internal::WorkersHandle::stop(Clock::time_point deadline,
                                                               bool with_values) {
  if (state_ == nullptr) {
    return moved_from_error();
  }
  return state_->signal_all(SIGTERM)
      .and_then([&] { return state_->reap_until(deadline, Again::never, with_values); })
      .and_then([&](bool) { return state_->signal_all(SIGKILL); })
      .and_then(
          [&] { return state_->reap_until(Clock::time_point::max(), Again::never, with_values); })
      .map([&](bool) { return state_->ends(with_values); });
}

Expected<std::vector<WorkerEnd>> internal::WorkersHandle::reap_ended() {
  state_->patience = launch::ForkServerProcess::kPatience;
  return state_->reap_ended(Clock::now()).map([&](const std::vector<int>& ranks) {
    std::vector<WorkerEnd> ends;
    ends.reserve(ranks.size());
    for (const int rank : ranks) {
      ends.push_back(state_->end_of(rank, true));
    }
    return ends;
  });
}

Expected<void> internal::WorkersHandle::restart(int rank) { return state_->restart(rank); }

std::string internal::WorkersHandle::name() const {
  return state_ != nullptr ? state_->launch.name : "";
}

std::vector<pid_t> internal::WorkersHandle::pids() const {
  std::vector<pid_t> result;
  if (state_ != nullptr) {
    for (const Child& child : state_->children) {
      result.push_back(child.at.pid);
    }
  }
  return result;
}

std::vector<int> internal::WorkersHandle::pidfds() const {
  std::vector<int> result;
  for (const Child& child : state_->children) {
    result.push_back(child.at.pidfd.get());
  }
  return result;
}

Expected<internal::WorkersHandle> internal::start_workers(const WorkersOptions& options,
                                                          WorkerBody body, const WorkerJob& job) {
  if (thread_scope.end != 0) {
    return make_error(ErrorCode::in_use,
                      "workers '" + options.name +
                          "' are started in an ArenaScope, in whose arena they and all that they "
                          "are given would lie; end the scope first");
  }
  auto state = std::make_unique<WorkersHandle::State>();
  state->launch.name = options.name;
  state->options = options;
  state->launch.start_timeout = launch::bounded(options.start_timeout);
  auto started = launch::prepare(options, job, state->launch);
  if (!started) {
    return tl::make_unexpected(state->error_of(std::move(started.error())));
  }
  state->launch.body = std::move(body);
  started = state->start_all();
  if (!started) {
    return tl::make_unexpected(state->error_of(std::move(started.error())));
  }
  if (options.restarts == 0) {  // the body refers to the caller's arguments
    state->launch.body = nullptr;
    state->forget_job();
  }
  return WorkersHandle(std::move(state));
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
