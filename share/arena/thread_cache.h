#pragma once

#include <atomic>
#include <cstdint>

#include <cowshed/share/arena/resource.h>

namespace cowshed::internal {

class ArenaCore;

// What one thread has of one arena: free blocks, and a cache of jemalloc's.  Belongs to the thread,
// which frees it.  It is in the arena's list while `key` is the arena's key.
struct ThreadCache {
  ArenaCore* core;
  std::uint64_t key;
  unsigned jemalloc_cache;
  unsigned jemalloc_arena;
  int flags;
  ThreadCache* next_of_arena;
  ThreadCache* next_of_thread;
  std::atomic<bool>* busy;  // the thread's, see LastArena

  FreeBlocks free_blocks{};

  void use() {  // makes this the last arena of the calling thread
    last_arena.key = key;
    last_arena.free_blocks = &free_blocks;
    last_arena.flags = flags;
  }
  void flush();  // gives all blocks back to jemalloc; no thread may use the cache meanwhile
};

}  // namespace cowshed::internal
