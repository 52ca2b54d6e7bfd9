#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <ranges>
#include <span>
#include <vector>

namespace cowshed::cow {

// A mapping of a process in which an allocator may have memory.
struct HeapPart {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool is_data = false;       // of the C library, Python or the program: it may lead to heaps
  bool is_of_python = false;  // and that, of Python

  bool has(std::uint64_t address) const { return begin <= address && address < end; }
};

// Reads the process's memory at an address; false: it is not there.
using ReadMemory = std::function<bool(std::uint64_t address, std::span<std::byte> to)>;

// Who holds a free page, and whether malloc_trim(3) gives it back.
enum class FreeIn : std::uint8_t {
  malloc,
  top_of_thread,  // of malloc()'s arena: malloc_trim(3) leaves it
  pymalloc,       // which gives back whole arenas alone
};

// Whole pages that an allocator holds free.
struct FreePages {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  FreeIn in = FreeIn::malloc;
};

// What the allocators of a process hold free.
struct FreeMemory {
  std::vector<FreePages> pages;  // in order
  // The largest glibc.malloc.mmap_threshold with which malloc() maps most of the blocks that it
  // holds free one by one, and so gives them back at once; 0: they are too small for that, or it is
  // not known.
  std::uint64_t mmap_threshold = 0;
};

// The parts of a process's memory, in order.
class HeapMemory {
 public:
  // A fork or a change of protection may have divided a heap.
  HeapMemory(std::vector<HeapPart> parts, const ReadMemory& read) : read_(read) {
    std::ranges::sort(parts, {}, &HeapPart::begin);
    for (const HeapPart& part : parts) {
      const bool is_next = !parts_.empty() && parts_.back().end == part.begin;
      if (is_next && !part.is_data && !parts_.back().is_data) parts_.back().end = part.end;
      else parts_.push_back(part);
    }
  }

  const HeapPart* part_at(std::uint64_t address) const {
    auto after = std::ranges::upper_bound(parts_, address, {}, &HeapPart::begin);
    if (after == parts_.begin()) return nullptr;
    --after;
    return address < after->end ? &*after : nullptr;
  }

  // The value must be in one part.
  template <class T>
  bool read(std::uint64_t address, T& value) const {
    const HeapPart* part = part_at(address);
    return part != nullptr && part->end - address >= sizeof value &&
           read_(address, std::as_writable_bytes(std::span(&value, 1)));
  }
  // All in one part.
  bool read_words(std::uint64_t address, std::span<std::uint64_t> words) const {
    return read_(address, std::as_writable_bytes(words));
  }
  // 0: it is not there.
  std::uint64_t word(std::uint64_t address) const {
    std::uint64_t value = 0;
    return read(address, value) ? value : 0;
  }

  // Calls `visit` with the address and the words of each part that `is_meant`, up to kMostData
  // bytes in all, until it returns true.  The last first: libraries come behind the program, and
  // what is 0 at the start behind other data.
  template <class Visit>
  void visit_data(bool HeapPart::* is_meant, const Visit& visit) const {
    std::uint64_t left = kMostData;
    for (const HeapPart& part : parts_ | std::views::reverse) {
      const std::uint64_t bytes = std::min(part.end - part.begin, left);
      if (!(part.*is_meant)) continue;
      left -= bytes;
      std::vector<std::uint64_t> words(bytes / sizeof(std::uint64_t));
      if (!read_(part.begin, std::as_writable_bytes(std::span(words)))) continue;
      if (visit(part.begin, std::span<const std::uint64_t>(words))) return;
    }
  }

 private:
  static constexpr std::uint64_t kMostData = 6 << 20;

  std::vector<HeapPart> parts_;
  const ReadMemory& read_;
};

// Sorts pages, and leaves out those that begin in others: a hostile heap has blocks in blocks.
inline std::vector<FreePages> in_order(std::vector<FreePages> pages) {
  std::ranges::sort(pages, {}, &FreePages::begin);
  std::vector<FreePages> result;
  for (const FreePages& each : pages)
    if (result.empty() || each.begin >= result.back().end) result.push_back(each);
  return result;
}

// Returns the pages in free blocks of malloc() of glibc (2.17 to 2.43, x86-64), in order: those in
// the lists of each arena, and at the top of its heap.  They may have no memory: what was given
// back, say.  nullopt: not known; the process has another malloc, or has ended.
//
// It finds the main arena in `parts` by its list heads, of which the empty ones point to
// themselves, and follows the arena's links.  The process may be hostile, and runs meanwhile: a
// block is believed if it lies in one of the parts and its size stands at its end, too; else its
// list ends there.  Free blocks that meet are one: mmap_threshold goes by the size of the used
// block behind them, unless that is small, as what is kept of a burst may be.
std::optional<FreeMemory> free_pages_of_glibc(const std::vector<HeapPart>& parts,
                                              const ReadMemory& read);

// Returns the free pools of pymalloc (CPython 3.9 to 3.15 with its lock), in order, with those that
// were never used, which may have no memory.  nullopt: not known; the process has no pymalloc, or
// has ended.
//
// It needs no symbols.  Python's data points to the list of arenas, of which each leads to its
// first pool, and the head of that has the arena's place in the list.  The process may be hostile,
// and runs meanwhile: an arena or a pool is believed if its numbers fit each other, and the rest of
// its list is left out otherwise.
std::optional<std::vector<FreePages>> free_pages_of_python(const std::vector<HeapPart>& parts,
                                                           const ReadMemory& read);

}  // namespace cowshed::cow
