#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/workers/function.h>
#include <cowshed/share/workers/options.h>

// What the templates of workers.h hand to the library, and get from it.
namespace cowshed::internal {

struct WorkerEnd {
  WorkerExit exit;
  std::shared_ptr<Decoder> value;  // given out once; null: none
  std::uint64_t value_bytes = 0;
};

// The workers of one start().
class StartedWorkers {
 public:
  StartedWorkers() = default;
  StartedWorkers(const StartedWorkers&) = delete;
  StartedWorkers& operator=(const StartedWorkers&) = delete;
  virtual ~StartedWorkers() = default;

  virtual Expected<std::vector<WorkerEnd>> wait(bool with_values) = 0;
  virtual Expected<std::vector<WorkerEnd>> stop(std::chrono::steady_clock::time_point deadline,
                                                bool with_values) = 0;
  // For who starts them again by itself.  Reaps those that have ended, and does not wait.
  virtual Expected<std::vector<WorkerEnd>> reap_ended() = 0;
  virtual Expected<void> restart(int rank) = 0;  // of one that has been reaped

  virtual const std::string& name() const = 0;
  virtual std::vector<pid_t> pids() const = 0;
  virtual std::vector<int> pidfds() const = 0;  // by rank; -1: it has been reaped
};
using WorkersHandle = std::unique_ptr<StartedWorkers>;

tl::unexpected<Error> moved_from_error();

using WorkerBody = std::function<int(const Worker&, Encoder& value)>;

// For spawn and forkserver; fork needs none of it.
struct WorkerJob {
  const WorkerFunction* function = nullptr;
  std::function<void(Encoder&)> arguments;
};
Expected<WorkersHandle> start_workers(const WorkersOptions& options, WorkerBody body,
                                      const WorkerJob& job);
// arena_not_frozen when another process would not have the object.
Expected<void> check_inheritable(const void* object);
tl::unexpected<Error> no_copies_error(const std::string& name);

}  // namespace cowshed::internal
