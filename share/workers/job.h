#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/workers/function.h>
#include <cowshed/share/workers/options.h>

// The interface between the templates of workers.h, which know the types, and the library, which
// starts the processes.  WorkerProcess is for users.
namespace cowshed {

namespace launch {
struct Child;
struct Launch;
}  // namespace launch

namespace internal {
class StartedWorkers;
}

// One worker, as its parent sees it.  Refers to its Workers: it stays valid when they are moved,
// and must not be used after they are destroyed.  Not thread-safe.
class WorkerProcess {
 public:
  WorkerProcess(internal::StartedWorkers& workers, int rank) : workers_(&workers), rank_(rank) {}

  int rank() const { return rank_; }
  // After a restart, the new process's.  Once the worker has been waited for, the kernel may give
  // the PID to another process; pidfd() always means this worker.
  pid_t pid() const;
  // Borrowed: the Workers close it.  poll(2) finds it readable when the worker has ended.  -1 once
  // the worker has been waited for.
  int pidfd() const;
  bool running() const { return pidfd() >= 0; }

  // Does nothing if the worker has ended.  Errors: system_call, as EPERM for a worker that has
  // become another user's.
  Expected<void> send_signal(int signal) const;
  // Like Workers::wait_for(), but for this worker alone.  Its value comes with Workers::wait().
  Expected<WorkerExit> wait_for(std::chrono::milliseconds timeout) const;

 private:
  internal::StartedWorkers* workers_;
  int rank_;
};

namespace internal {

// What each worker of one start() does, in the two forms in which a worker can get it.
struct WorkerTask {
  // For fork: the worker inherits this call.  It writes the value and returns the exit code.
  using Body = std::function<int(const Worker&, Encoder& value)>;
  Body body = nullptr;
  // For spawn and forkserver: found by name in the worker, with arguments that are sent.
  const WorkerFunction* function = nullptr;
  std::function<void(Encoder&)> arguments = nullptr;
  bool returns_value = false;  // a worker that ends without a value has failed
};

struct WorkerEnd {
  WorkerExit exit;
  std::optional<Decoder> value;  // reads what the StartedWorkers have
  std::uint64_t value_bytes = 0;
};

// The workers of one start(), from their start to their end.  Not thread-safe.
class StartedWorkers {
 public:
  using Clock = std::chrono::steady_clock;

  StartedWorkers(const WorkersOptions& options, WorkerTask task);
  StartedWorkers(const StartedWorkers&) = delete;
  StartedWorkers& operator=(const StartedWorkers&) = delete;
  ~StartedWorkers();  // see ~Workers()

  Expected<void> start();
  // See Workers::wait(), wait_for() and stop().
  Expected<std::vector<WorkerEnd>> wait();
  Expected<std::vector<WorkerEnd>> wait_for(std::chrono::milliseconds timeout);
  Expected<std::vector<WorkerEnd>> stop(Clock::time_point deadline);

  // Each value is handed out once: called when they all are.
  void drop_values() noexcept;

  // For map(), which restarts workers by itself.  Returns those that have ended since the last
  // call, without waiting.
  Expected<std::vector<WorkerEnd>> reap_ended();
  Expected<void> restart(int rank);  // of a worker that has ended

  const std::string& name() const;
  std::vector<WorkerProcess> processes();  // by rank

 private:
  friend class cowshed::WorkerProcess;
  enum class Restart : std::uint8_t { no, if_failed };

  Expected<void> start_all();
  Expected<launch::Child> start_one(int rank);
  Expected<void> start_again(launch::Child& child);
  Expected<void> wait_for(std::span<launch::Child> awaited, std::chrono::milliseconds timeout);
  Expected<void> reap_until(std::span<launch::Child> awaited, Clock::time_point deadline,
                            Restart restarting);
  Expected<void> restart_failed();
  Expected<std::vector<int>> reap_some(Clock::time_point deadline);
  Expected<bool> reap(launch::Child& child, Clock::time_point deadline);
  Clock::time_point next_start_timeout() const;
  Expected<void> kill_late_starters();
  Expected<void> signal_all(int signal) const;
  Expected<void> send_signal(const launch::Child& child, int signal) const;
  std::vector<WorkerEnd> ends();
  WorkerEnd end_of(launch::Child& child, bool must_return) const;
  launch::Child& child_at(int rank);
  std::string named(const std::string& what) const;  // "workers 'NAME': WHAT"
  Error named(Error error) const;

  std::unique_ptr<launch::Launch> launch_;
  pid_t owner_;
  std::vector<launch::Child> children_;  // by rank
};
using WorkersHandle = std::unique_ptr<StartedWorkers>;

Expected<WorkersHandle> start_workers(const WorkersOptions& options, WorkerTask task);

// Fails with arena_not_frozen if another process would not have the object.
Expected<void> check_inheritable(const void* object);
tl::unexpected<Error> moved_from_workers_error();
tl::unexpected<Error> no_copies_error(const std::string& name);

}  // namespace internal
}  // namespace cowshed
