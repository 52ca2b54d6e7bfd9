#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include <cowshed/share/arena/mapping.h>
#include <cowshed/share/os/memory_limits.h>
#include <cowshed/share/os/runs.h>

namespace cowshed {

// The memory behind an arena's open part: pages of its memfd, really taken before they are handed
// out, so that shortage is a failed allocation and not a SIGBUS later.  It comes in 2 MiB pages
// (MADV_COLLAPSE of a range of which one page exists: the kernel zeroes 2 MiB at once, some ten
// times faster than 512 page faults), in 4 KiB pages where the kernel has no huge page to give.
class ArenaMemory {
 public:
  // Why commit() failed last.
  enum class Shortage : std::uint8_t { none, cgroup, kernel };

  // `mapping` is shared and writable from its byte `first` on, a multiple of 2 MiB.
  Expected<void> open(const ArenaMapping& mapping, std::size_t first, bool huge_pages,
                      const std::string& name);
  void close();
  void forget();  // in a forked child, which has none of it

  // jemalloc's hooks.  Thread-safe; page-aligned; allocate nothing.
  bool commit(std::uintptr_t begin, std::size_t size) noexcept;
  void decommit(std::uintptr_t begin, std::size_t size) noexcept;
  void forget_shortage() { shortage_.store(Shortage::none, std::memory_order_relaxed); }
  Shortage shortage() const { return shortage_.load(std::memory_order_relaxed); }

  // The rest is for one thread, while nobody allocates.

  // Gives 2 MiB ranges without any block back to the kernel, and says which those before used()
  // are.
  std::vector<Run> trim();
  // Tries again for every 2 MiB range that is in small pages.
  void collapse(const Progress& progress);

  std::uintptr_t begin() const { return mapping_.begin; }
  std::size_t capacity() const { return mapping_.size; }
  std::size_t used() const { return used_.load(std::memory_order_relaxed); }  // end of the last
  std::size_t taken() const { return taken_ranges_ * kHugePage; }  // bytes taken from the kernel
  std::vector<Run> small() const;                                  // of them, in 4 KiB pages
  // As ArenaCore::Frozen counts.
  void add_to(std::size_t& taken, std::vector<Run>& small, int& huge_page_error) const;

 private:
  enum class Backing : std::uint8_t { nothing, small, huge };  // of a 2 MiB range

  bool grow(std::size_t first, std::size_t last) noexcept;
  bool take(std::size_t first, std::size_t count) noexcept;
  bool take_huge(std::size_t first, std::size_t count) noexcept;
  void set(const std::vector<Run>& runs, Backing backing);
  bool is_empty(std::size_t range) const;

  ArenaMapping mapping_{-1, 0, 0};
  std::size_t first_ = 0;  // ranges before belong to earlier generations
  bool huge_pages_ = true;
  int failures_ = 0;                  // of collapse, in a row
  std::atomic<int> error_ = 0;        // of the last
  std::atomic<bool> purged_ = false;  // what is committed now may have been used before
  MemoryLimits limits_;
  std::atomic<Backing>* ranges_ = nullptr;
  std::atomic<std::uint64_t>* pages_ = nullptr;  // one bit a page: part of an extent in use
  std::size_t records_size_ = 0;
  std::optional<std::mutex> growing_;
  std::size_t taken_ranges_ = 0;
  std::atomic<std::size_t> used_ = 0;
  std::atomic<Shortage> shortage_ = Shortage::none;
};

}  // namespace cowshed
