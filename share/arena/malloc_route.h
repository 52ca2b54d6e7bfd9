#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <mutex>

#include <cowshed/share/jemalloc/outside_scope.h>

// What the program's malloc, share/malloc/, needs of arenas.
namespace cowshed::internal {

// A range that includes all arenas that ever existed, and little else.
struct ArenaHull {
  std::atomic<std::uintptr_t> begin = UINTPTR_MAX;
  std::atomic<std::uintptr_t> end = 0;
};
extern constinit ArenaHull arena_hull;
void widen_hull(std::uintptr_t begin, std::uintptr_t end);

// Frees a block of an arena, which may have been destroyed.  Returns false if it is not such a
// block.
bool free_in_arena(void* block) noexcept;

struct BlockInArena {
  // How many bytes can be read.  For a frozen block, whose allocator's records are gone, to the end
  // of the arena's memory.
  std::size_t readable = 0;
  bool frozen = false;
};
// Returns {} if the block is not in an arena.
BlockInArena look_up_in_arena(const void* block) noexcept;

// Called when a thread ends.  Also leaves scopes whose handles other threads have.
void leave_scopes_of_thread() noexcept;

// Held while libc allocates what it keeps for ever, and during a fork, so that no child inherits
// that half done.
extern constinit std::mutex first_use_of_libc;

// Allocates the stream's buffer now, not at its first use.
void make_buffer(FILE* stream) noexcept;

}  // namespace cowshed::internal

// The address of the program's malloc if cowshed::malloc is linked, else null.
extern "C" [[gnu::weak]] void* (*const cowshed_linked_malloc)(std::size_t);
