#pragma once

#include <cstddef>

// The private copy of jemalloc 5.3 that cmake/PrivateJemalloc.cmake makes: what we use of its API,
// under our prefix.  <jemalloc/jemalloc.h> would declare the program's malloc instead.
namespace cowshed::jemalloc {

// extent_hooks_t of jemalloc.h, field by field.
struct ExtentHooks {
  void* (*alloc)(ExtentHooks*, void* address, std::size_t size, std::size_t alignment, bool* zero,
                 bool* commit, unsigned arena);
  bool (*dalloc)(ExtentHooks*, void*, std::size_t, bool, unsigned);
  void (*destroy)(ExtentHooks*, void*, std::size_t, bool, unsigned);
  bool (*commit)(ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, unsigned);
  bool (*decommit)(ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, unsigned);
  bool (*purge_lazy)(ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, unsigned);
  bool (*purge_forced)(ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, unsigned);
  bool (*split)(ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, bool, unsigned);
  bool (*merge)(ExtentHooks*, void*, std::size_t, void*, std::size_t, bool, unsigned);
};

// All of these return 0 or an errno.  Thread-safe; after fork() usable in the child.
int create_arena(ExtentHooks* hooks, unsigned& arena);  // its records stay out of the hooks' memory
int destroy_arena(unsigned arena);                      // no cache may hold blocks of it any more
int set_growth_limit(unsigned arena, std::size_t bytes);
int create_cache(unsigned& cache);
int destroy_cache(unsigned cache);  // gives its blocks back to their arena

constexpr unsigned kNoCache = ~0U;

// Null when the arena's hooks refuse.  `alignment` is a power of two; `size` may be 0.
void* allocate(unsigned arena, unsigned cache, std::size_t size, std::size_t alignment) noexcept;
void deallocate(unsigned arena, unsigned cache, void* block, std::size_t size,
                std::size_t alignment) noexcept;

}  // namespace cowshed::jemalloc
