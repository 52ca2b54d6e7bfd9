#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory_resource>

// Not for users: the part of Arena::allocate() that is worth having inline.

namespace cowshed {
class ArenaCore;
}

namespace cowshed::internal {

// Blocks that a thread has freed and takes again first: a few instructions, where jemalloc's own
// cache takes some 5 ns by mallocx().  One shelf for each of jemalloc's size classes.
class Stock {
 public:
  static constexpr std::size_t kLargest = 4096;

  Stock() noexcept {}  // does not touch blocks_

  // jemalloc has four classes for each doubling; 8, and every multiple of 16 up to 128.
  static constexpr unsigned shelf_of(std::size_t size) {  // 1 to kLargest
    if (size <= 128) return size <= 8 ? 0 : static_cast<unsigned>((size + 15) / 16);
    const auto doubling = static_cast<unsigned>(std::bit_width(size - 1));
    return static_cast<unsigned>((size - 1) >> (doubling - 3)) + 4 * doubling - 27;
  }
  static constexpr std::size_t size_of(unsigned shelf) {
    return shelf <= 8 ? (shelf == 0 ? 8 : 16 * shelf)
                      : std::size_t{(shelf - 9) % 4 + 5} << ((shelf - 9) / 4 + 5);
  }

  void* take(unsigned shelf) {  // null: none
    return counts_[shelf] == 0 ? nullptr : blocks_[shelf][--counts_[shelf]];
  }
  bool put(void* block, unsigned shelf) {  // false: no room
    if (counts_[shelf] == kMost) return false;
    blocks_[shelf][counts_[shelf]++] = block;
    return true;
  }

  static constexpr unsigned kShelves = 29;

 private:
  static constexpr std::uint8_t kMost = 32;

  std::array<std::uint8_t, kShelves> counts_{};
  std::array<std::array<void*, kMost>, kShelves> blocks_;  // beyond counts_: anything
};
static_assert(Stock::shelf_of(129) == 9 && Stock::size_of(9) == 160 &&
              Stock::shelf_of(Stock::kLargest) == Stock::kShelves - 1 &&
              Stock::size_of(Stock::kShelves - 1) == Stock::kLargest);

constexpr std::uint64_t kNoKey = ~std::uint64_t{0};  // no arena's

// What the arena that this thread used last has for it.
struct LastArena {
  std::uint64_t key = kNoKey;
  Stock* stock = nullptr;
  int flags = 0;                   // for jemalloc: the thread's cache, the arena
  std::atomic<bool> busy = false;  // inside the stock or jemalloc: who pauses an arena waits for it
};

// Constant-initialised, so that reading it costs no guard; initial-exec, as in jemalloc, so that it
// costs one load.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local LastArena last_arena;

// Marks this thread as busy.  Two plain stores here, because whoever pauses an arena
// makes all threads pass a barrier (membarrier) between changing its keys and looking at `busy`.
class Busy {
 public:
  Busy() {
    last_arena.busy.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~Busy() { last_arena.busy.store(false, std::memory_order_release); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
};

constexpr std::size_t kNaturalAlignment = 16;

// Size classes are multiples of 16, or 8: up to there a size that is no smaller than the alignment
// has it by itself, and asking for an alignment leaves jemalloc's fast path.
constexpr std::size_t jemalloc_size(std::size_t size, std::size_t alignment) {
  return size < alignment ? alignment : size;
}
constexpr int alignment_flags(std::size_t alignment) {  // MALLOCX_ALIGN
  return alignment <= kNaturalAlignment ? 0 : __builtin_ctzll(alignment);
}

// One for each arena there ever was, and never freed: who still has a pointer to it when the arena
// is destroyed, and another one lives in its core, must not reach that.
class ArenaFront : public std::pmr::memory_resource {
 public:
  explicit ArenaFront(ArenaCore* core) : core_(core) {}

  // What calls another function comes last in both, so that what is called most needs no frame.
  void* take(std::size_t size, std::size_t alignment) {
    const std::size_t wanted = jemalloc_size(size, alignment);
    if (wanted <= Stock::kLargest && alignment <= kNaturalAlignment) [[likely]] {
      const Busy busy;
      if (last_arena.key == take_key_.load(std::memory_order_acquire)) [[likely]] {
        if (void* block = last_arena.stock->take(Stock::shelf_of(wanted))) [[likely]]
          return block;
      }
    }
    return take_from_jemalloc(size, alignment);
  }

  void give(void* block, std::size_t size, std::size_t alignment) noexcept {
    const std::size_t given = jemalloc_size(size, alignment);
    if (given <= Stock::kLargest && alignment <= kNaturalAlignment) [[likely]] {
      const Busy busy;
      if (last_arena.key == give_key_.load(std::memory_order_acquire) &&
          last_arena.stock->put(block, Stock::shelf_of(given))) [[likely]] {
        return;
      }
    }
    give_to_jemalloc(block, size, alignment);
  }

  // While allocation is open, and while all of the arena's blocks are jemalloc's.
  void open(std::uint64_t take_key, std::uint64_t give_key) {
    take_key_.store(take_key, std::memory_order_release);
    give_key_.store(give_key, std::memory_order_release);
  }
  void close() {
    take_key_ = 0;
    give_key_ = 0;
  }
  bool takes(std::uint64_t key) const { return key == take_key_.load(std::memory_order_acquire); }

 private:
  void* take_from_jemalloc(std::size_t size, std::size_t alignment);
  void give_to_jemalloc(void* block, std::size_t size, std::size_t alignment) noexcept;
  void* take_slowly(std::size_t size, std::size_t alignment);
  void give_slowly(void* block) noexcept;

  ArenaCore* const core_;                    // null: a front for handles that were moved from
  std::atomic<std::uint64_t> take_key_ = 0;  // the arena's key while allocation is open, else 0
  std::atomic<std::uint64_t> give_key_ = 0;  // the same, while all of its blocks are jemalloc's

  void* do_allocate(std::size_t size, std::size_t alignment) override {
    return take(size, alignment);
  }
  void do_deallocate(void* block, std::size_t size, std::size_t alignment) override {
    give(block, size, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

ArenaFront* front_of_no_arena() noexcept;

}  // namespace cowshed::internal
