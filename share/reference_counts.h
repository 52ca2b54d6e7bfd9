#pragma once

#include <array>
#include <atomic>
#include <cstdint>

// The reference counts of counted_ptr.h, which is what to use.  They lie in ordinary private
// memory, in chunks that are reached by index, so that counting writes to no page of an arena.
//
// Lock-free, so that a fork at any instruction leaves them consistent in the child, where they are
// the child's own.  Each chunk has a random number, and a handle names it: one that came from
// another process by a file or a descriptor, or that outlived its arena, finds no count here and
// counts nothing (but for one chance in 2^32 per chunk).
namespace cowshed::internal {

// What a count is about.  Neither function is called when the block lies in an arena that is frozen
// or was not inherited.
class CountedBlock {
 public:
  virtual void destroy() noexcept = 0;     // the object
  virtual void deallocate() noexcept = 0;  // the block itself

 protected:
  CountedBlock() = default;
  CountedBlock(const CountedBlock&) = delete;
  CountedBlock& operator=(const CountedBlock&) = delete;
  ~CountedBlock() = default;
};

struct CountHandle {
  std::uint32_t index = 0;
  std::uint32_t chunk_id = 0;  // 0: of nothing

  bool operator==(const CountHandle&) const = default;
  bool operator<(const CountHandle& other) const {
    return index != other.index ? index < other.index : chunk_id < other.chunk_id;
  }
};

struct CountSlot {
  std::atomic<std::uint32_t> uses;
  std::atomic<std::uint32_t> weak;  // plus one while there are uses
};

struct CountChunk {
  std::atomic<CountSlot*> slots;
  std::atomic<std::uint32_t> id;  // 0: not in use
};

constexpr std::uint32_t kCountsPerChunk = 65536;
extern std::array<CountChunk, 65536> count_chunks;

// A count from here on is stuck: its object is never destroyed.
constexpr std::uint32_t kStuckCount = 0x80000000;

// One use of the block.  Throws std::bad_alloc; there are 2^32 - 2^16 counts.
CountHandle add_count(CountedBlock* block);

void last_use_dropped(CountHandle handle, CountSlot& slot) noexcept;
void last_weak_dropped(CountHandle handle) noexcept;

// False for an address in an arena that is frozen or was not inherited.
bool may_destroy(const void* address) noexcept;

inline CountSlot* find_count(CountHandle handle) noexcept {
  if (handle.chunk_id == 0) {
    return nullptr;
  }
  const CountChunk& chunk = count_chunks[handle.index / kCountsPerChunk];
  if (chunk.id.load(std::memory_order_acquire) != handle.chunk_id) {
    return nullptr;
  }
  return chunk.slots.load(std::memory_order_relaxed) + handle.index % kCountsPerChunk;
}

// Puts a count back in the middle of its stuck half, so that no number of threads gets it out.
inline void keep_stuck(std::atomic<std::uint32_t>& count) noexcept {
  count.store(kStuckCount + kStuckCount / 2, std::memory_order_relaxed);
}

inline void add_reference(std::atomic<std::uint32_t>& count) noexcept {
  if (count.fetch_add(1, std::memory_order_relaxed) >= kStuckCount) {
    keep_stuck(count);
  }
}

// True when it was the last.
inline bool drop_reference(std::atomic<std::uint32_t>& count) noexcept {
  const std::uint32_t before = count.fetch_sub(1, std::memory_order_acq_rel);
  if (before >= kStuckCount) {
    keep_stuck(count);
  }
  return before == 1;
}

inline void add_use(CountHandle handle) noexcept {
  if (CountSlot* slot = find_count(handle)) {
    add_reference(slot->uses);
  }
}

inline void drop_use(CountHandle handle) noexcept {
  if (CountSlot* slot = find_count(handle)) {
    if (drop_reference(slot->uses)) {
      last_use_dropped(handle, *slot);
    }
  }
}

inline void add_weak(CountHandle handle) noexcept {
  if (CountSlot* slot = find_count(handle)) {
    add_reference(slot->weak);
  }
}

inline void drop_weak(CountHandle handle) noexcept {
  if (CountSlot* slot = find_count(handle)) {
    if (drop_reference(slot->weak)) {
      last_weak_dropped(handle);
    }
  }
}

// False when there is no use any more.
inline bool add_use_if_used(CountHandle handle) noexcept {
  CountSlot* slot = find_count(handle);
  if (slot == nullptr) {
    return handle.chunk_id != 0;
  }
  std::uint32_t uses = slot->uses.load(std::memory_order_relaxed);
  do {
    if (uses == 0) {
      return false;
    }
    if (uses >= kStuckCount) {
      return true;
    }
  } while (!slot->uses.compare_exchange_weak(uses, uses + 1, std::memory_order_acq_rel,
                                             std::memory_order_relaxed));
  return true;
}

inline long use_count(CountHandle handle) noexcept {
  if (const CountSlot* slot = find_count(handle)) {
    return slot->uses.load(std::memory_order_relaxed);
  }
  return handle.chunk_id != 0 ? 1 : 0;
}

}  // namespace cowshed::internal

namespace cowshed {

class ArenaCore;

// To be called when the arena is destroyed: its handles find no count any more.
void release_counts_in(const ArenaCore* arena) noexcept;

}  // namespace cowshed
