#pragma once

#include <atomic>
#include <cstdint>

#include <cowshed/share/arena/resource.h>

namespace cowshed {

class ArenaCore;

// What one thread has of one arena.  Belongs to the thread, which frees it; in the arena's list
// while `key` is the arena's.
struct ThreadCache {
  ArenaCore* core;
  std::uint64_t key;
  unsigned jemalloc_cache;
  int flags;
  ThreadCache* next_of_arena;
  ThreadCache* next_of_thread;
  std::atomic<bool>* busy;  // the thread's, see internal::LastArena

  internal::Stock stock{};

  void use() {  // by the thread itself
    internal::last_arena.key = key;
    internal::last_arena.stock = &stock;
    internal::last_arena.flags = flags;
  }
  void flush();  // while nobody uses it
};

}  // namespace cowshed
