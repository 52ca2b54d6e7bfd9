#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <cowshed/share/arena/options.h>

// What settle() takes and returns.
namespace cowshed {

// What settle() does with other threads of this process.
enum class OtherThreads : std::uint8_t {
  refuse,  // fails with threads_running
  // Stops them while it moves up to 16 MiB, by a signal that glibc keeps for itself (33).  System
  // calls go on afterwards.  Some fail with EINTR, even where SA_RESTART is set: poll() and
  // epoll_wait() with a time limit, usleep(), reads with SO_RCVTIMEO, and waits that begin in the
  // moment of the stop.  A write() to a pipe or a socket may return after a part.
  stop,
};

struct SettleOptions {
  // Memory to move besides glibc's heap: whole pages of private anonymous mappings, such as another
  // allocator's.  Their owner must not expect that MADV_DONTNEED makes them zero: afterwards it
  // brings back the bytes that they had when they were settled.  jemalloc, tcmalloc, mimalloc, Go
  // and the JVM expect that.  Each range gets a memfd: after a write to it, fork() copies the page
  // tables of all of it.
  std::vector<std::span<const std::byte>> also = {};
  // Memory to leave alone, such as buffers that a device or io_uring has registered.
  std::vector<std::span<const std::byte>> leave = {};
  // Moves glibc's heap: malloc's main heap, the heaps of its threads, and large blocks that have a
  // mapping of their own.
  bool heap = true;
  OtherThreads threads = OtherThreads::refuse;
  // How long the other threads may take to stop, while those that have stopped wait.
  std::chrono::milliseconds stop_timeout = std::chrono::seconds(1);
  // Says that no asynchronous I/O is under way, and that all memory that is registered for I/O is
  // in `leave`.  Without this, settle() refuses a process with an io_uring, with a context of
  // io_setup(2), or with pinned memory.
  bool io_is_at_rest = false;
  // Adds mappings of files to core dumps (/proc/self/coredump_filter), so that dumps of this
  // process and its children keep the settled memory.  They then hold the code of the program, too.
  // Programs that these processes execute later inherit the filter.  Without it, a dump has only
  // the settled mappings to which somebody has written.
  bool keep_in_core_dumps = true;
  // Puts the memory into 2 MiB pages: children have fewer page faults, and settle() takes about as
  // long again.  Ranges of 2 MiB that were not full take more memory.  Needs no setting of
  // transparent huge pages.
  bool huge_pages = false;
  // Forks twice for Settled::fork_before and fork_after.  Such a child runs no fork handlers.
  bool time_fork = false;
  // Called after every 64 MiB or so.  Other threads run meanwhile.
  Progress progress = nullptr;
};

enum class SettledKind : std::uint8_t { main_heap, thread_heap, large_blocks, named };

struct MovedMemory {
  std::span<const std::byte> memory;
  SettledKind kind;
};

struct LeftMemory {
  std::span<const std::byte> memory;
  std::string reason;  // "is locked (mlock)"
};

struct Settled {
  std::vector<MovedMemory> moved;  // by address
  std::vector<LeftMemory> left;    // private, writable memory that has pages, and why it stayed
  std::size_t moved_bytes = 0;     // addresses
  std::size_t copied_bytes = 0;    // the pages of them that were not zero
  std::size_t huge_page_bytes = 0;
  std::chrono::nanoseconds time{};
  // The longest time for which other threads were stopped, or signals waited.
  std::chrono::nanoseconds longest_pause{};
  // Page tables of this process, in bytes: an upper bound of what a fork copied, or copies now.
  std::size_t page_tables_before = 0;
  std::size_t page_tables_after = 0;
  // How long fork() took in this thread.  None without .time_fork, or if the kernel refused to
  // fork.
  std::optional<std::chrono::nanoseconds> fork_before;
  std::optional<std::chrono::nanoseconds> fork_after;
};

struct ReshareOptions {
  // Leaves pages that differed from the memfd this long ago, or were no copies then.  The call
  // looks at all copies, waits so long, and looks again.  So a page that is written all the time is
  // given back at most once in this time.  A change that was undone between the looks goes
  // unnoticed.
  std::chrono::milliseconds cold_for{};
  // The part of a CPU that the call takes: it pauses after each 16 MiB.
  double cpu_share = 1;
  // Called in the place of these pauses, with how long to sleep.  If it returns false, the call
  // ends with ErrorCode::interrupted, and leaves the rest.
  std::function<bool(std::chrono::nanoseconds)> pause = nullptr;
  // As of SettleOptions.
  std::vector<std::span<const std::byte>> leave = {};
  OtherThreads threads = OtherThreads::refuse;
  std::chrono::milliseconds stop_timeout = std::chrono::seconds(1);
  bool io_is_at_rest = false;
};

struct Reshared {
  std::size_t compared_bytes = 0;    // copies that this process had, but for those of `left`
  std::size_t given_back_bytes = 0;  // of them
  std::size_t swapped_bytes = 0;     // copies in swap, which stay there and were not compared
  std::vector<LeftMemory> left;      // settled memory with copies that were not compared, and why
  std::chrono::nanoseconds time{};
  std::chrono::nanoseconds cpu{};
  // The longest time for which other threads were stopped, or signals waited.
  std::chrono::nanoseconds longest_pause{};
};

}  // namespace cowshed
