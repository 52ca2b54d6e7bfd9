#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <cowshed/share/forkserver.h>

#include "bare_worker.h"

namespace cowshed::bench {

// Both from before the start.
struct StartTimes {
  double begin_us;  // until the worker's first line runs
  double cycle_us;  // until it has been reaped, and what it said is there
};

// Starts workers, each of which says when it began and ends, by the method of that name: "bare
// fork", "clone3", "vfork", "posix_spawn", "thread", or the library's "fork", "spawn" and
// "forkserver".
class Starter {
 public:
  Starter();

  // Medians of repeat(), one worker after the other.  Throws std::runtime_error when one did not
  // begin between the call and its end.
  StartTimes measure(const std::string& method);

 private:
  StartTimes measure_one(const std::string& method);
  std::int64_t by_hand(const std::string& method);
  std::int64_t by_library(const std::string& method);

  std::int64_t* clock_;               // shared with forked workers
  std::optional<ForkServer> server_;  // from its first worker on
};

// What it asks of this program, whose main() begins with is_worker().
extern const NamedTask begin_task;

}  // namespace cowshed::bench
