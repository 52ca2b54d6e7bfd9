// cowshed::malloc: the program's malloc family, for ArenaScope.  Behind it is the private jemalloc
// that arenas use, so that a scope only changes where a thread's malloc takes its memory: malloc
// itself pays nothing.  A free looks at the address first: what is frozen is dropped, and no block
// ever gets into a cache from which it would come back in the wrong place.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <malloc.h>

#include <cowshed/share/malloc_route.h>
#include <cowshed/share/private_jemalloc.h>

using namespace cowshed;

namespace {

enum class Owner : std::uint8_t { cached, heap_in_scope, arena };

inline Owner owner_of(const void* block) {
  const auto address = reinterpret_cast<std::uintptr_t>(block);
  const ThreadScope& scope = thread_scope;
  if (address - scope.begin < scope.end - scope.begin) {
    return Owner::cached;
  }
  if (address >= arena_hull.begin.load(std::memory_order_relaxed) &&
      address < arena_hull.end.load(std::memory_order_relaxed)) [[unlikely]] {
    return Owner::arena;
  }
  return scope.end == 0 ? Owner::cached : Owner::heap_in_scope;
}

[[gnu::noinline]] void free_slowly(void* block, Owner owner) {
  if (owner == Owner::arena && free_in_arena(block)) {
    return;
  }
  if (block != nullptr) {
    cowshed_je_dallocx(block, jemalloc::kNoCacheFlags);
  }
}

[[gnu::noinline]] void* move(void* block, std::size_t size, Owner owner) {
  std::size_t readable = owner == Owner::arena ? readable_in_arena(block) : 0;
  if (readable == 0) {
    readable = cowshed_je_malloc_usable_size(block);
  }
  void* moved = cowshed_je_malloc(size);
  if (moved != nullptr) {
    std::memcpy(moved, block, std::min(size, readable));
    free_slowly(block, owner);
  }
  return moved;
}

}  // namespace

extern "C" {

void* malloc(std::size_t size) noexcept { return cowshed_je_malloc(size); }

void* calloc(std::size_t count, std::size_t size) noexcept {
  return cowshed_je_calloc(count, size);
}

void free(void* block) noexcept {
  const Owner owner = owner_of(block);
  if (owner == Owner::cached) [[likely]] {
    cowshed_je_free(block);
  } else {
    free_slowly(block, owner);
  }
}

void* realloc(void* block, std::size_t size) noexcept {
  const Owner owner = owner_of(block);
  if (owner == Owner::cached || block == nullptr) {
    return cowshed_je_realloc(block, size);
  }
  return move(block, size, owner);
}

void* memalign(std::size_t alignment, std::size_t size) noexcept {
  return cowshed_je_memalign(alignment, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  return cowshed_je_aligned_alloc(alignment, size);
}

int posix_memalign(void** block, std::size_t alignment, std::size_t size) noexcept {
  return cowshed_je_posix_memalign(block, alignment, size);
}

void* valloc(std::size_t size) noexcept { return cowshed_je_valloc(size); }

void* pvalloc(std::size_t size) noexcept {
  constexpr std::size_t kPage = 4096;
  return cowshed_je_valloc((size + kPage - 1) & ~(kPage - 1));
}

// 0 for a frozen block: nothing of it may be written to.
std::size_t malloc_usable_size(void* block) noexcept {
  return owner_of(block) == Owner::arena && is_frozen_block(block)
             ? 0
             : cowshed_je_malloc_usable_size(block);
}

// As many arenas as jemalloc takes by default: it serves the whole program here.
extern const char* const cowshed_je_malloc_conf_2_conf_harder;
const char* const cowshed_je_malloc_conf_2_conf_harder = "narenas:default";

void* (*const cowshed_linked_malloc)(std::size_t) = &malloc;
}
