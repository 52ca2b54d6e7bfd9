#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory_resource>

// Not for users: the part of Arena::allocate() that is worth having inline.

// mallocx() and sdallocx() of the private jemalloc, see private_jemalloc.h.
extern "C" {
void* cowshed_je_mallocx(std::size_t size, int flags) noexcept;
void cowshed_je_sdallocx(void* block, std::size_t size, int flags) noexcept;
}

namespace cowshed::internal {

constexpr std::uint64_t kNoKey = ~std::uint64_t{0};  // no arena's

// What the arena that this thread used last has for it.
struct LastArena {
  std::uint64_t key = kNoKey;
  int flags = 0;                   // for jemalloc: the thread's cache, the arena
  std::atomic<bool> busy = false;  // inside jemalloc: whoever pauses an arena waits for it
};

// Constant-initialised, so that reading it costs no guard; initial-exec, as in jemalloc, so that it
// costs one load.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local LastArena last_arena;

// Marks this thread as inside jemalloc.  Two plain stores here, because whoever pauses an arena
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

// Size classes are multiples of 16, or 8: up to there a size that is no smaller than the alignment
// has it by itself, and asking for an alignment leaves jemalloc's fast path.
constexpr std::size_t jemalloc_size(std::size_t size, std::size_t alignment) {
  return size < alignment ? alignment : size;
}
constexpr int alignment_flags(std::size_t alignment) {  // MALLOCX_ALIGN
  return alignment <= 16 ? 0 : __builtin_ctzll(alignment);
}

class ArenaFront : public std::pmr::memory_resource {
 public:
  void* take(std::size_t size, std::size_t alignment) {
    {
      const Busy busy;
      if (last_arena.key == take_key_.load(std::memory_order_acquire)) [[likely]] {
        if (void* block = cowshed_je_mallocx(jemalloc_size(size, alignment),
                                             last_arena.flags | alignment_flags(alignment)))
            [[likely]] {
          return block;
        }
      }
    }
    return take_slowly(size, alignment);
  }

  void give(void* block, std::size_t size, std::size_t alignment) noexcept {
    {
      const Busy busy;
      if (last_arena.key == give_key_.load(std::memory_order_acquire)) [[likely]] {
        cowshed_je_sdallocx(block, jemalloc_size(size, alignment),
                            last_arena.flags | alignment_flags(alignment));
        return;
      }
    }
    give_slowly(block);
  }

  std::uintptr_t open_begin() const { return open_begin_.load(std::memory_order_relaxed); }

 protected:
  void* take_slowly(std::size_t size, std::size_t alignment);
  void give_slowly(void* block) noexcept;

  std::atomic<std::uint64_t> take_key_ = 0;  // the arena's key while allocation is open, else 0
  std::atomic<std::uint64_t> give_key_ = 0;  // the same, while all of its blocks are jemalloc's
  // What jemalloc has of the range; empty when frozen.
  std::atomic<std::uintptr_t> open_begin_ = 0;
  std::atomic<std::uintptr_t> open_end_ = 0;

 private:
  void* do_allocate(std::size_t size, std::size_t alignment) override {
    return take(size, alignment);
  }
  void do_deallocate(void* block, std::size_t size, std::size_t alignment) override {
    give(block, size, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

}  // namespace cowshed::internal
