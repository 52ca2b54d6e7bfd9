#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

// The options of start(), and what it reports about the end of each worker.
namespace cowshed {

class ForkServer;  // forkserver.h

enum class Start : std::uint8_t {
  fork,        // inherits all that this process has; refused if the process has other threads
  spawn,       // executes this program, or another one; works in a process with threads
  forkserver,  // is forked by a small process without threads, see forkserver.h; works with threads
};

// What Start::fork does in a process with other threads.  A worker does not have those threads, and
// their locks stay locked in it for ever: a logger's mutex, or one inside a library.  Cowshed's own
// locks and malloc's are safe, because fork waits for them.
enum class Threads : std::uint8_t {
  // Fails with threads_running, and names the threads.  Without this, one worker in a thousand
  // would hang, far from the cause.
  refuse,
  allow,  // the caller knows that no other thread holds a lock that a worker needs
};

struct WorkersOptions {
  Start method = Start::fork;
  int count = 1;
  std::string name = "worker";
  // Kill the worker when its parent ends.  The parent of a forkserver's worker is the forkserver,
  // which ends with its owner.  For fork and spawn the kernel watches the *thread* that called
  // start(), or that restarted the worker by wait(), wait_for() or map(): call them from a thread
  // that lives as long as the workers may.  A worker that changes its user, group or capabilities,
  // as by setuid(), lives on, unless it then calls prctl(PR_SET_PDEATHSIG, SIGKILL).
  bool die_with_parent = true;
  Threads threads = Threads::refuse;
  // Maximum restarts per failed worker.  Only wait(), wait_for() and map() restart.  With fork,
  // a value above 0 copies the function and its arguments.
  int restarts = 0;
  std::vector<std::string> environment = {};  // "NAME=value", added to this process's environment
  // For spawn: another program, which must have a Runtime and the same worker function.
  std::filesystem::path program = {};
  // For spawn: kill a worker that has not reached its function by then.  Usually its main() has no
  // Runtime.  For forkserver: fail with timed_out if it has started no worker for so long, perhaps
  // because it is stopped.  At most 24 days.
  std::chrono::milliseconds start_timeout = std::chrono::seconds(30);
  const ForkServer* server = nullptr;  // for forkserver; null: the process's own, started if needed
};

// How a worker ended.
struct WorkerExit {
  int rank = 0;
  pid_t pid = 0;
  int exit_code = -1;  // -1 if a signal ended it
  int signal = 0;      // 0 if it exited
  std::string error;   // "" on success; else one line: an exception's what(), a stray write, a
                       // signal, or an exit code that is not 0
  std::uint64_t start_ns = 0;  // how long fork() or posix_spawn() took
  int restarts = 0;            // how often it was restarted before this end

  bool ok() const { return error.empty(); }
};

template <class R>
struct WorkerResult : WorkerExit {
  std::optional<R> value;  // what the function returned; empty unless ok()
};

}  // namespace cowshed
