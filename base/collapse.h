#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <sys/types.h>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

// Puts private memory of a process into 2 MiB pages, by MADV_COLLAPSE.  fork() copies an entry for
// each of them, and not 512.
namespace cowshed {

struct CollapseOptions {
  // The holes of a 2 MiB range are filled.  All filled holes together take at most this part of the
  // private memory: the ranges with the fewest holes are collapsed.
  double most_added = 0.02;
  // The part of a CPU that the collapse takes: it pauses after each 2 MiB.
  double cpu_share = 1;
};

// Why memory stays in small pages.
enum class SmallPages : std::uint8_t {
  sparse,     // a range with too many holes
  shared,     // a page is shared with a child, the parent, or by KSM
  edge,       // a mapping begins or ends in the range
  swapped,    // a page is swapped out
  locked,     // mlock
  forbidden,  // MADV_NOHUGEPAGE, MADV_MERGEABLE, userfaultfd; MADV_DONTFORK, which no fork copies
  busy,       // the kernel refused: pages in use by I/O, or changed meanwhile
  no_memory,  // no free 2 MiB page, or a cgroup or the machine has less than 32 MiB left
  stopped,    // the caller ended the collapse
};
inline constexpr std::size_t kSmallPagesReasons = 9;
inline constexpr std::array<const char*, kSmallPagesReasons> kSmallPagesNames = {
    "sparse", "shared", "edge", "swapped", "locked", "forbidden", "busy", "no_memory", "stopped"};

struct Collapsed {
  std::uint64_t private_bytes = 0;  // resident private anonymous memory, before
  std::uint64_t huge_bytes_before = 0;
  std::uint64_t huge_bytes_after = 0;
  std::uint64_t added_bytes = 0;  // holes that were filled
  // Without those of huge pages, which fork() does not copy.
  std::uint64_t page_tables_before = 0;
  std::uint64_t page_tables_after = 0;
  // Resident private memory that is in small pages, by SmallPages.
  std::array<std::uint64_t, kSmallPagesReasons> left{};
  std::chrono::nanoseconds time{};
  std::chrono::nanoseconds cpu{};
  // The longest call of the kernel, for 2 MiB.  Page faults and forks of the process may wait for a
  // part of it.
  std::chrono::nanoseconds longest_call{};

  std::uint64_t& left_as(SmallPages reason) { return left[static_cast<std::size_t>(reason)]; }
  std::uint64_t left_as(SmallPages reason) const { return left[static_cast<std::size_t>(reason)]; }
};

namespace internal {

// Collapses one process, again and again.  Move-only.  Not thread-safe.
class Collapser {
 public:
  // Returns whether to go on; called between ranges.
  using Progress = std::function<bool(std::uint64_t done_bytes, std::uint64_t of_bytes)>;

  // 0: this process.  Errors: unsupported (before Linux 6.1, no transparent huge pages, or the
  // process has forbidden them); permission_denied; no_such_process; system_call.
  static Expected<Collapser> open(pid_t pid, const CollapseOptions& options);

  int pidfd() const { return pidfd_.get(); }  // -1: this process

  // Looks at the memory of the process, and collapses the ranges that are full enough. `most_added`
  // bounds the holes that this Collapser has filled in all rounds and that are still there.
  // A process that ends, forks, executes or unmaps meanwhile keeps its bytes.  Errors:
  // no_such_process, permission_denied, system_call.
  Expected<Collapsed> collapse(const Progress& progress = nullptr);

 private:
  struct Range;
  class Round;

  Collapser(pid_t pid, FileDescriptor pidfd, const CollapseOptions& options)
      : pid_(pid), pidfd_(std::move(pidfd)), options_(options) {}
  std::string folder() const;
  int advise(std::uint64_t begin, std::uint64_t bytes) const;

  pid_t pid_;
  FileDescriptor pidfd_;
  CollapseOptions options_;
  std::map<std::uint64_t, std::uint64_t> filled_;  // the holes filled in a range, by its address
};

}  // namespace internal
}  // namespace cowshed
