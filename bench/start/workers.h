#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <sys/types.h>
#include <thread>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/forkserver.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

#include "../subject.h"

// Processes that hold data, and their workers, which read it.
namespace cowshed::bench {

using Numbers = std::vector<std::uint64_t>;
using WordsOfData = std::span<const std::uint64_t>;

// What a process holds.  `memory` is
//   none   nothing
//   arena  a frozen arena in 2 MiB pages
//   heap   glibc's malloc, in 4 KiB pages
//   settled  the same, after settle()
//   huge   glibc's malloc, in 2 MiB pages by GLIBC_TUNABLES=glibc.malloc.hugetlb=1
//   memfd  a memfd mapped MAP_SHARED, in 2 MiB pages: sharing by hand
struct Held {
  std::string memory;
  std::size_t bytes;

  std::string name() const;  // "none", or as "arena/4GiB"
};

// Maps one MAP_SHARED, for pages of 2 MiB.  Throws if that fails.
void* map_memfd(int fd, std::size_t bytes, int protection);

// Nothing, and every memory with 64 MiB and 4 GiB.
std::vector<Held> all_held();

// One array, checked when it is made.
struct Holding {
  explicit Holding(const Held& held);

  std::string memory;
  WordsOfData words;
  Numbers heap;  // heap, settled and huge
  std::optional<Arena> arena;
  Ref<WordsOfData> ref;  // arena
  int memfd = -1;
};

// The process that holds it: one for all benchmarks of this process.  It answers
//   fork                   the ns that fork() takes it
//   start METHOD THREADS   of a worker, beside so many other threads: the ns from the call to its
//                          first line, to its answer about the data, and to its end
//   memory METHOD WORKERS  of workers that have read all the data: PSS of all processes and their
//                          page tables in bytes, and the ns from the first start until then
Subject& holder(const Held& held);

// Settles this process's heap.  Throws if fewer bytes move, or lie in 2 MiB pages.
void settle_all(std::size_t bytes, bool huge_pages);

double time_fork();
std::vector<double> time_start(const std::string& method, Holding& holding, std::size_t threads);
std::vector<double> measure_memory(const std::string& method, Holding& holding, int workers);

// To start a worker by the method of that name.  `server` is started if it is needed.
WorkersOptions by_library(const std::string& method, std::optional<ForkServer>& server);

// The sum of 64 words, evenly spaced, or of one in each page of 4 KiB.
enum class Part : std::uint8_t { some, each_page };

// What a worker says: when its first line ran, when it had its answer, and the answer.
struct Reply {
  std::uint64_t begun = 0;
  std::uint64_t answered = 0;
  std::uint64_t sum = 0;
};
Reply reply_about(WordsOfData words, Part part, std::uint64_t begun);
// Throws if the answer is wrong.
void check(const Reply& reply, WordsOfData words, Part part);

// A worker without the library.
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

  std::array<int, 2> sockets_{-1, -1};  // ours, and the worker's; ours is shut down to end it
  pid_t pid_ = 0;
  std::thread thread_;
};

// main() begins with it: the exit code, if this process is such a worker.
std::optional<int> run_as_worker(int argc, char** argv);

}  // namespace cowshed::bench
