#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <cowshed/share/forkserver.h>

namespace cowshed::bench {

// Both from before the start.
struct StartTimes {
  double begin_us;  // until the worker's first line runs
  double cycle_us;  // until it has been reaped, and its value is there
};

// Starts workers by one method: "bare fork", "posix_spawn", or the library's "fork", "spawn" and
// "forkserver".  Each worker returns the time at which it began.
class Starter {
 public:
  Starter();

  // Medians of repeat(), one worker after the other.  Throws std::runtime_error when a worker did
  // not begin between the call and its end.
  StartTimes measure(const std::string& method);

 private:
  StartTimes measure_one(const std::string& method);
  std::int64_t by_fork();
  std::int64_t by_posix_spawn();
  std::int64_t by_library(const std::string& method);

  std::int64_t* clock_;               // shared with forked workers
  std::optional<ForkServer> server_;  // from its first worker on
};

// main() begins with it: the exit code, where this process is a worker by posix_spawn.
std::optional<int> is_worker(int argc, char** argv);

}  // namespace cowshed::bench
