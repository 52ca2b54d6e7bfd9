#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory_resource>

// The fast path of Arena::allocate() and deallocate(), inline.  Not for users.
namespace cowshed::internal {

class ArenaCore;

// Blocks of one arena that a thread has freed and will use again, one list per size class.  Costs a
// few instructions; jemalloc's own thread cache costs some 5 ns by mallocx().
class FreeBlocks {
 public:
  static constexpr std::size_t kLargest = 4096;

  FreeBlocks() noexcept {}  // does not touch blocks_

  // jemalloc's size classes: 8, the multiples of 16 up to 128, then four for each power of two.
  static constexpr unsigned class_of(std::size_t size) {  // 1 to kLargest
    if (size <= 128) return size <= 8 ? 0 : static_cast<unsigned>((size + 15) / 16);
    const auto bits = static_cast<unsigned>(std::bit_width(size - 1));
    return static_cast<unsigned>((size - 1) >> (bits - 3)) + 4 * bits - 27;
  }
  static constexpr std::size_t size_of(unsigned size_class) {
    return size_class <= 8 ? (size_class == 0 ? 8 : 16 * size_class)
                           : std::size_t{(size_class - 9) % 4 + 5} << ((size_class - 9) / 4 + 5);
  }

  void* take(unsigned size_class) {  // null: none
    return counts_[size_class] == 0 ? nullptr : blocks_[size_class][--counts_[size_class]];
  }
  bool put(void* block, unsigned size_class) {  // false: no room
    if (counts_[size_class] == kMost) return false;
    blocks_[size_class][counts_[size_class]++] = block;
    return true;
  }

  static constexpr unsigned kClasses = 29;

 private:
  static constexpr std::uint8_t kMost = 32;

  std::array<std::uint8_t, kClasses> counts_{};
  std::array<std::array<void*, kMost>, kClasses> blocks_;  // beyond counts_: anything
};
static_assert(FreeBlocks::class_of(129) == 9 && FreeBlocks::size_of(9) == 160 &&
              FreeBlocks::class_of(FreeBlocks::kLargest) == FreeBlocks::kClasses - 1 &&
              FreeBlocks::size_of(FreeBlocks::kClasses - 1) == FreeBlocks::kLargest);

constexpr std::uint64_t kNoKey = ~std::uint64_t{0};  // the key of no arena

// The arena that this thread used last, and what the thread has of it.
struct LastArena {
  std::uint64_t key = kNoKey;
  FreeBlocks* free_blocks = nullptr;
  int flags = 0;  // for jemalloc: the arena, and the thread's cache
  std::atomic<bool> busy =
      false;  // the thread uses these blocks; ArenaCore::pause() waits for that
};

// Constant-initialised, so that a read needs no guard.  Initial-exec, so that it needs one load.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local LastArena last_arena;

// Marks this thread as busy.  Two plain stores are enough: ArenaCore::pause() changes the keys,
// makes all threads pass a barrier (membarrier), and then reads `busy`.
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

// A block whose size is at least its alignment has that alignment by itself, up to 16, because size
// classes are 8 and multiples of 16.  A request for an alignment would leave jemalloc's fast path.
constexpr std::size_t jemalloc_size(std::size_t size, std::size_t alignment) {
  return size < alignment ? alignment : size;
}
constexpr int alignment_flags(std::size_t alignment) {  // MALLOCX_ALIGN
  return alignment <= kNaturalAlignment ? 0 : __builtin_ctzll(alignment);
}

// An arena's memory resource.  Each arena has its own, which is never freed: a pointer to it may
// outlive the arena, and must not lead to another arena that uses the same core.
class ArenaResource : public std::pmr::memory_resource {
 public:
  explicit ArenaResource(ArenaCore* core) : core_(core) {}

  // Both call other functions last, so that the fast path needs no stack frame.
  void* allocate(std::size_t size, std::size_t alignment) {
    const std::size_t wanted = jemalloc_size(size, alignment);
    if (wanted <= FreeBlocks::kLargest && alignment <= kNaturalAlignment) [[likely]] {
      const Busy busy;
      if (last_arena.key == allocate_key_.load(std::memory_order_acquire)) [[likely]] {
        if (void* block = last_arena.free_blocks->take(FreeBlocks::class_of(wanted))) [[likely]]
          return block;
      }
    }
    return allocate_in_jemalloc(size, alignment);
  }

  void deallocate(void* block, std::size_t size, std::size_t alignment) noexcept {
    const std::size_t taken = jemalloc_size(size, alignment);
    if (taken <= FreeBlocks::kLargest && alignment <= kNaturalAlignment) [[likely]] {
      const Busy busy;
      if (last_arena.key == deallocate_key_.load(std::memory_order_acquire) &&
          last_arena.free_blocks->put(block, FreeBlocks::class_of(taken))) [[likely]] {
        return;
      }
    }
    deallocate_in_jemalloc(block, size, alignment);
  }

  // Opens the fast path to threads whose last arena has these keys; 0 lets none in.
  void open(std::uint64_t allocate_key, std::uint64_t deallocate_key) {
    allocate_key_.store(allocate_key, std::memory_order_release);
    deallocate_key_.store(deallocate_key, std::memory_order_release);
  }
  void close() {
    allocate_key_ = 0;
    deallocate_key_ = 0;
  }
  bool allows(std::uint64_t key) const {
    return key == allocate_key_.load(std::memory_order_acquire);
  }

 private:
  void* allocate_in_jemalloc(std::size_t size, std::size_t alignment);
  void deallocate_in_jemalloc(void* block, std::size_t size, std::size_t alignment) noexcept;
  void* allocate_slowly(std::size_t size, std::size_t alignment);
  void deallocate_slowly(void* block) noexcept;

  ArenaCore* const core_;                          // null for resource_of_no_arena()
  std::atomic<std::uint64_t> allocate_key_ = 0;    // the arena's key while it is open, else 0
  std::atomic<std::uint64_t> deallocate_key_ = 0;  // the same in the first generation, else 0

  void* do_allocate(std::size_t size, std::size_t alignment) override {
    return allocate(size, alignment);
  }
  void do_deallocate(void* block, std::size_t size, std::size_t alignment) override {
    deallocate(block, size, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

// The resource of an Arena that was moved from: it throws.
ArenaResource* resource_of_no_arena() noexcept;

}  // namespace cowshed::internal
