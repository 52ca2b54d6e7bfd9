#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <mutex>

#include <cowshed/share/jemalloc/outside_scope.h>

// What share/malloc/, the program's malloc, asks of arenas.
namespace cowshed {

// Every arena that there ever was lies in here; few other things do.
struct ArenaHull {
  std::atomic<std::uintptr_t> begin = UINTPTR_MAX;
  std::atomic<std::uintptr_t> end = 0;
};
extern constinit ArenaHull arena_hull;
void widen_hull(std::uintptr_t begin, std::uintptr_t end);

// Frees a block of an arena, also one that was destroyed; false: it is none.
bool free_in_arena(void* block) noexcept;
// A block of an arena.
struct BlockInArena {
  // How many bytes may be read: to the end of what the arena has when the block is frozen, since
  // its allocator's records are gone.
  std::size_t readable = 0;
  bool frozen = false;
};
// Says so of a block that is not an arena's: none readable, not frozen.
BlockInArena look_up_in_arena(const void* block) noexcept;

// At the thread's end, also those whose handles others have.
void leave_scopes_of_thread() noexcept;

// Held over a fork, too: no child finds it half done, as the static of a function would be, and
// tzset() reads a file.
std::mutex& first_use_of_libc();

// The stream's buffer, which would be made at its first use.
void make_buffer(FILE* stream) noexcept;

}  // namespace cowshed

// The address of the program's malloc when cowshed::malloc is linked, else null.
extern "C" [[gnu::weak]] void* (*const cowshed_linked_malloc)(std::size_t);
