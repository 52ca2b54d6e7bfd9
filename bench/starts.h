#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <cowshed/share/forkserver.h>

namespace cowshed::bench {

// Both from before the start.
struct StartTimes {
  double begin_us;  // until the worker's first line runs
  double cycle_us;  // until it has been reaped, and what it said is there
};

// Starts one worker, which says when it began and ends, by the method of that name: "bare fork",
// "clone3", "vfork", "posix_spawn", "thread", or the library's "fork", "spawn" and "forkserver".
// The program's main() begins with what is_worker() says.
class Starter {
 public:
  Starter();

  // Throws std::runtime_error when the worker did not begin between the call and its end.
  StartTimes measure(const std::string& method);

 private:
  std::int64_t begun_by(const std::string& method);
  std::int64_t by_fork();
  std::int64_t by_clone3();
  std::int64_t by_thread();
  std::int64_t by_library(const std::string& method);

  std::int64_t* clock_;               // shared with forked workers
  std::optional<ForkServer> server_;  // from its first worker on
};

// What they are, for a report.
constexpr const char* kBareForkSetting = "fork(), _exit(), waitpid()";
constexpr const char* kPosixSpawnSetting =
    "of this program, whose main() writes the time to a pipe and ends";

// The exit code, when this process is a worker by vfork or posix_spawn.
std::optional<int> is_worker(int argc, char** argv);

}  // namespace cowshed::bench
