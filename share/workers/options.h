#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

// What start() is told, and what it says of a worker's end.
namespace cowshed {

class ForkServer;  // forkserver.h

enum class Start : std::uint8_t {
  fork,        // what this process has is inherited, for free; not for one with threads
  spawn,       // exec of this program or another: also for processes with threads
  forkserver,  // a small process without threads, see forkserver.h, forks it
};

// What fork does in a process with other threads.  They do not exist in a worker, and what they
// hold locked stays locked there for ever: a logger's mutex, or one inside a library.  (Cowshed's
// own and malloc's are never held: fork waits for them.)
enum class Threads : std::uint8_t {
  // The error threads_running, which counts and names them.  A worker that hangs does so once in a
  // thousand starts, far from its cause; this fails at the first.
  refuse,
  allow,  // the caller knows that no thread holds what a worker needs
};

struct WorkersOptions {
  Start method = Start::fork;
  int count = 1;
  std::string name = "worker";
  // SIGKILL for a worker whose parent ended (under forkserver: whose forkserver did, which ends
  // with its owner).  For fork and spawn the kernel means the parent's *thread* that called
  // start(): with this set, call it from one that lives as long as the workers may.
  bool die_with_parent = true;
  Threads threads = Threads::refuse;
  // How often one that fails is started again: by wait(), which alone notices it, or by map().  By
  // fork the arguments and the function are copied for that.
  int restarts = 0;
  std::vector<std::string> environment = {};  // "NAME=value", beside what there is
  // For spawn: another program that has a Runtime and the same worker function.
  std::filesystem::path program = {};
  // For spawn: one that has not come to its function by then is killed; its program has no Runtime,
  // most likely.  24 days at most.
  std::chrono::milliseconds start_timeout = std::chrono::seconds(30);
  const ForkServer* server = nullptr;  // for forkserver; null: one that is started when needed
};

// What became of one.
struct WorkerExit {
  int rank = 0;
  pid_t pid = 0;
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;      // 0 when it exited
  std::string error;   // "" when all went well; else one line: an exception's what(), a stray
                       // write, a signal, an exit code that is not 0
  std::uint64_t start_ns = 0;  // how long fork() or posix_spawn() took
  int restarts = 0;            // before it

  bool ok() const { return error.empty(); }
};

template <class R>
struct WorkerResult : WorkerExit {
  std::optional<R> value;  // that the function returned; none unless ok()
};

}  // namespace cowshed
