#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

// The private copy of jemalloc 5.3 that cmake/PrivateJemalloc.cmake makes: what we use of its API,
// under our prefix.  <jemalloc/jemalloc.h> would declare the program's malloc instead.
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

// What lives in an arena, by jemalloc's size classes; blocks in a cache count as live.
struct ArenaCounts {
  std::size_t live_bytes = 0;
  std::uint64_t live_blocks = 0;
};

// Those that return int return 0 or an errno.  Thread-safe; after fork() usable in the child.
void initialise();  // which else the first allocation does: registers jemalloc's fork handlers
int create_arena(ExtentHooks* hooks, unsigned& arena);  // its records stay out of the hooks' memory
int destroy_arena(unsigned arena);                      // no cache may hold blocks of it any more
int purge_arena(unsigned arena);  // every free extent that was in use goes through decommit
int create_cache(unsigned& cache);
int flush_cache(unsigned cache);    // gives its blocks back to their arena; nobody may use it now
int destroy_cache(unsigned cache);  // the same, and the number is free again
ArenaCounts count_arena(unsigned arena);
bool has_block(const void* address);  // it lies in memory that jemalloc has handed out
bool has_extent(const void* begin);   // it has records of memory that begins here

// Addresses that only arenas had which are destroyed: gives back what jemalloc's map has on them,
// 2 MiB a GiB, which every fork would copy.  Does so for whole, aligned GiB.
void forget_addresses(std::uintptr_t begin, std::uintptr_t end);

// This thread's malloc: which arena it takes from, and its own cache.
int thread_arena(unsigned& arena);
int set_thread_arena(unsigned arena);
void flush_thread_cache();

// MALLOCX_ARENA, MALLOCX_TCACHE and MALLOCX_TCACHE_NONE of jemalloc.h.
constexpr int kNoCacheFlags = 1 << 8;
constexpr int arena_flags(unsigned arena) { return static_cast<int>((arena + 1) << 20U); }
constexpr int cache_flags(unsigned cache) { return static_cast<int>((cache + 2) << 8U); }
// The nearest size that it has: below, of those from 16 KiB on; above, of those but 8, and the
// largest number where there is none.
constexpr std::size_t size_class_below(std::size_t size) {
  const std::size_t bits = std::max<std::size_t>(std::bit_width(size), 3);
  return size & ~((std::size_t{1} << (bits - 3)) - 1);
}
constexpr std::size_t size_class_above(std::size_t size) {
  constexpr std::size_t kLargest = std::size_t{7} << 60U;
  const std::size_t step = std::size_t{1}
                           << (std::max<std::size_t>(std::bit_width(size - 1), 7) - 3);
  return size > kLargest ? SIZE_MAX : (size + step - 1) & ~(step - 1);
}
static_assert(size_class_below(63 << 20) == 56 << 20 && size_class_below(64 << 20) == 64 << 20 &&
              size_class_above(100) == 112 && size_class_above(1000) == 1024 &&
              size_class_above(100000) == 114688 && size_class_above(64 << 20) == 64 << 20);
// Memory for our own records, whatever arena the thread's malloc takes from.
inline void* allocate_record(std::size_t size) noexcept {
  return cowshed_je_mallocx(size, arena_flags(0) | kNoCacheFlags);
}
inline void deallocate_record(void* block) noexcept { cowshed_je_dallocx(block, kNoCacheFlags); }

}  // namespace cowshed::jemalloc
