#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

// The private copy of jemalloc 5.3 that cmake/PrivateJemalloc.cmake makes.  Declares the part of
// its API that we use, under our prefix.  <jemalloc/jemalloc.h> would declare the program's malloc.
extern "C" {
void* cowshed_je_malloc(std::size_t size) noexcept;
void* cowshed_je_calloc(std::size_t count, std::size_t size) noexcept;
void* cowshed_je_realloc(void* block, std::size_t size) noexcept;
void cowshed_je_free(void* block) noexcept;
void* cowshed_je_memalign(std::size_t alignment, std::size_t size) noexcept;
void* cowshed_je_aligned_alloc(std::size_t alignment, std::size_t size) noexcept;
int cowshed_je_posix_memalign(void** block, std::size_t alignment, std::size_t size) noexcept;
std::size_t cowshed_je_malloc_usable_size(void* block) noexcept;
void* cowshed_je_mallocx(std::size_t size, int flags) noexcept;
void cowshed_je_dallocx(void* block, int flags) noexcept;
void cowshed_je_sdallocx(void* block, std::size_t size, int flags) noexcept;
void cowshed_je_grow_by(unsigned arena, std::size_t size) noexcept;
void* cowshed_je_take_free_range(unsigned arena, std::size_t size, std::size_t alignment,
                                 bool* was_used) noexcept;
bool cowshed_je_add_free_range(unsigned arena, void* begin, std::size_t size) noexcept;
void cowshed_je_give_free_ranges(unsigned from, unsigned to) noexcept;
}

namespace cowshed::jemalloc {

// extent_hooks_t of jemalloc.h, field by field.
struct ExtentHooks {
  void* (*alloc)(ExtentHooks*, void* address, std::size_t size, std::size_t alignment, bool* zero,
                 bool* commit, unsigned arena);
  bool (*dalloc)(ExtentHooks*, void*, std::size_t, bool, unsigned);
  void (*destroy)(ExtentHooks*, void*, std::size_t, bool, unsigned);
  bool (*commit)(ExtentHooks*, void*, std::size_t, std::size_t offset, std::size_t length,
                 unsigned);
  bool (*decommit)(ExtentHooks*, void*, std::size_t, std::size_t offset, std::size_t length,
                   unsigned);
  bool (*purge_lazy)(ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, unsigned);
  bool (*purge_forced)(ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, unsigned);
  bool (*split)(ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, bool, unsigned);
  bool (*merge)(ExtentHooks*, void*, std::size_t, void*, std::size_t, bool, unsigned);
};

// The live blocks of an arena, rounded up to size classes.  Blocks in a cache count as live.
struct ArenaCounts {
  std::size_t live_bytes = 0;
  std::uint64_t live_blocks = 0;
};

// Functions that return int return 0 or an errno.  Thread-safe; usable in a forked child.
void initialise();  // registers jemalloc's fork handlers, unless an allocation has done so
int create_arena(ExtentHooks* hooks, unsigned& arena);  // its records lie outside the hooks' memory
int destroy_arena(unsigned arena);                      // no cache may have blocks of it
int purge_arena(unsigned arena);  // decommits each free extent that was in use
int create_cache(unsigned& cache);
int flush_cache(unsigned cache);    // frees its blocks; no thread may use it meanwhile
int destroy_cache(unsigned cache);  // flushes it, and frees its number
ArenaCounts count_arena(unsigned arena);
// How many bytes an arena asks its hooks for, if its blocks need no more.
inline void grow_by(unsigned arena, std::size_t size) { cowshed_je_grow_by(arena, size); }
// Takes a free range, without regard to memory, from an arena for another one's hooks; null if it
// has none.  `was_used`: the range was in use since it was last decommitted.
inline void* take_free_range(unsigned arena, std::size_t size, std::size_t alignment,
                             bool& was_used) {
  return cowshed_je_take_free_range(arena, size, alignment, &was_used);
}
// Adds a range without memory to what an arena has free.  The addresses are lost if there is no
// memory for the record.
inline void add_free_range(unsigned arena, void* begin, std::size_t size) {
  (void)cowshed_je_add_free_range(arena, begin, size);
}
// Gives what is free and decommitted of an arena to another one that has the same hooks.
inline void give_free_ranges(unsigned from, unsigned to) { cowshed_je_give_free_ranges(from, to); }
bool has_block(const void* address);  // whether jemalloc has handed out the memory there
bool has_extent(
    const void* page);  // whether jemalloc has records of memory that begins or ends there

// Frees jemalloc's records of addresses that only destroyed arenas had: 8 bytes for each page,
// which every fork would copy.  Does so for whole, aligned GiB, or 4 GiB where pages may have 64
// KiB.
void forget_addresses(std::uintptr_t begin, std::uintptr_t end);

// The arena and the cache of this thread's malloc.
int thread_arena(unsigned& arena);
int set_thread_arena(unsigned arena);
void flush_thread_cache();

// MALLOCX_ARENA, MALLOCX_TCACHE and MALLOCX_TCACHE_NONE of jemalloc.h.
constexpr int kNoCacheFlags = 1 << 8;
constexpr int arena_flags(unsigned arena) { return static_cast<int>((arena + 1) << 20U); }
constexpr int cache_flags(unsigned cache) { return static_cast<int>((cache + 2) << 8U); }
// The nearest size class: below, for sizes from 16 KiB on; above, for all sizes, never 8, and
// SIZE_MAX if there is none.
constexpr std::size_t size_class_below(std::size_t size) {
  const int bits = std::max(static_cast<int>(std::bit_width(size)), 3);
  return size & ~((std::size_t{1} << (bits - 3)) - 1);
}
constexpr std::size_t size_class_above(std::size_t size) {
  constexpr std::size_t kLargest = std::size_t{7} << 60U;
  const int bits = std::max(static_cast<int>(std::bit_width(size - 1)), 7);
  const std::size_t step = std::size_t{1} << (bits - 3);
  return size > kLargest ? SIZE_MAX : (size + step - 1) & ~(step - 1);
}
static_assert(size_class_below(63 << 20) == 56 << 20 && size_class_below(64 << 20) == 64 << 20 &&
              size_class_above(100) == 112 && size_class_above(1000) == 1024 &&
              size_class_above(100000) == 114688 && size_class_above(64 << 20) == 64 << 20);
// Memory for our own records, outside the arena of an ArenaScope.
inline void* allocate_record(std::size_t size) noexcept {
  return cowshed_je_mallocx(size, arena_flags(0) | kNoCacheFlags);
}
inline void deallocate_record(void* block) noexcept { cowshed_je_dallocx(block, kNoCacheFlags); }

}  // namespace cowshed::jemalloc
