#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <thread>

#include "holding.h"

// A worker without the library.
namespace cowshed::bench {

// What a worker says: when its first line ran, when it had its answer, and the answer.
struct Reply {
  std::uint64_t begun = 0;
  std::uint64_t answered = 0;
  std::uint64_t sum = 0;
};
Reply reply_about(WordsOfData words, Part part, std::uint64_t begun);

class WorkerByHand {
 public:
  // `method` is bare_fork, vfork or posix_spawn, or thread.  Processes that execute this program
  // again map the memfd, or get the heap's data through a pipe of 1 MiB.  The worker replies, and
  // ends when its starter lets it.
  WorkerByHand(const std::string& method, const Holding& holding, Part part);
  ~WorkerByHand();  // lets it end and waits for that
  WorkerByHand(const WorkerByHand&) = delete;
  WorkerByHand& operator=(const WorkerByHand&) = delete;

  Reply reply();  // waits for it
  pid_t pid() const { return pid_; }

 private:
  void execute(bool by_vfork, const Holding& holding, Part part);
  [[noreturn]] void be_forked(const Holding& holding, Part part) const;

  std::array<int, 2> reply_{-1, -1};
  std::array<int, 2> end_{-1, -1};  // closed by the starter when the worker may end
  pid_t pid_ = 0;
  std::thread thread_;
};

// main() begins with it: the exit code, if this process is such a worker.
std::optional<int> run_as_worker(int argc, char** argv);

}  // namespace cowshed::bench
