#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <cowshed/base/memory_limits.h>
#include <cowshed/share/arena/mapping.h>
#include <cowshed/share/os/mapped_memory.h>
#include <cowshed/share/os/runs.h>

namespace cowshed::internal {

// The memory of an arena's open part: pages of its memfd.  They are allocated before they are
// handed out, so that a shortage is a failed allocation and not a later SIGBUS.  It tries 2 MiB
// pages first: it allocates one page of a range, and MADV_COLLAPSE makes a huge page of the range.
// The kernel then zeroes 2 MiB at once, some ten times faster than by 512 page faults.  Threads
// reserve ranges under a lock, and take them side by side without it.
class ArenaMemory {
 public:
  // `mapping` is shared and writable from its byte `first` on, a multiple of 2 MiB.
  Expected<void> open(const ArenaMapping& mapping, std::size_t first, bool huge_pages,
                      const std::string& name);
  void close();
  void forget();  // in a forked child, which has none of it

  // jemalloc's hooks, for whole pages.  Thread-safe; they allocate nothing.
  bool commit(std::uintptr_t begin, std::size_t size) noexcept;
  void decommit(std::uintptr_t begin, std::size_t size) noexcept;
  // Why a commit() failed since forget_shortage(): kLimited, if the cgroup or the machine has too
  // little memory left; or the errno of fallocate(2).  0 if none failed.
  static constexpr int kLimited = -1;
  void forget_shortage() { shortage_.store(0, std::memory_order_relaxed); }
  int shortage() const { return shortage_.load(std::memory_order_relaxed); }

  // The functions below need an arena that is paused.

  // Gives 2 MiB ranges without any block back to the kernel.  Returns those that are below used().
  std::vector<Run> trim();
  // Makes huge pages of the 2 MiB ranges that are in small pages, where it can.
  void collapse(const Progress& progress);

  std::uintptr_t begin() const { return mapping_.begin; }
  std::size_t capacity() const { return mapping_.size; }
  std::size_t used() const { return used_.load(std::memory_order_relaxed); }  // end of the last
  std::size_t taken() const { return taken_ranges_ * kHugePage; }  // bytes taken from the kernel
  std::vector<Run> small() const;                                  // of them, in 4 KiB pages
  // Adds to the members of ArenaCore::Frozen of these names.
  void add_to(std::size_t& taken, std::vector<Run>& small, int& huge_page_error) const;

 private:
  enum class Backing : std::uint8_t { nothing, reserved, small, huge };  // of a 2 MiB range

  struct Ranges {
    std::size_t first = 0;
    std::size_t count = 0;
  };

  struct Room {
    std::size_t bytes = 0;   // that the kernel had left
    std::size_t before = 0;  // the ranges that were done when it was asked

    std::size_t left(std::size_t reserved) const;
  };

  bool has_memory(std::size_t range) const {
    return ranges_[range].load(std::memory_order_acquire) > Backing::reserved;
  }
  bool grow(std::size_t first, std::size_t last) noexcept;
  Room look_for_room() const noexcept;
  std::size_t next_to_take(std::size_t range) const;
  bool should_help(std::size_t distance) const;
  std::size_t count_to_take(std::size_t begin, std::size_t last, std::size_t missing,
                            std::size_t left);
  std::pair<std::size_t, int> take(std::unique_lock<std::mutex>& lock, Ranges ranges) noexcept;
  std::size_t take(Ranges ranges) noexcept;
  bool take_huge(Ranges ranges) noexcept;
  bool give_back(Ranges ranges) noexcept;
  void set(const std::vector<Run>& runs, Backing backing);
  bool is_empty(std::size_t range) const;

  ArenaMapping mapping_{{}, 0, 0};
  std::size_t first_ = 0;  // the first range; those before it belong to earlier generations
  bool huge_pages_ = true;
  std::atomic<int> failures_ = 0;     // of MADV_COLLAPSE, in a row
  std::atomic<int> error_ = 0;        // errno of its last failure
  std::atomic<bool> purged_ = false;  // pages to be committed may have old contents
  MemoryLimits limits_;
  MappedMemory records_;  // has ranges_ and pages_
  std::atomic<Backing>* ranges_ = nullptr;
  std::atomic<std::uint64_t>* pages_ = nullptr;  // one bit per page: whether it is committed

  // Under the lock: what threads are taking now, and what was taken.
  std::optional<std::mutex> growing_;
  std::optional<std::condition_variable> has_taken_;
  std::size_t takers_ = 0;
  std::size_t crowd_ = 0;  // how many took at once of late
  std::size_t taken_ranges_ = 0;
  std::atomic<std::size_t> used_ = 0;
  std::atomic<int> shortage_ = 0;
};

}  // namespace cowshed::internal
