#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <new>
#include <unistd.h>
#include <utility>

#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/malloc_route.h>

// The caches that threads have of arenas.  A thread finds its cache by the arena's key.  A cache is
// in two lists, the arena's and the thread's, and is freed with the thread.
namespace cowshed::internal {

constinit thread_local LastArena last_arena;
constinit std::atomic<int> ArenaCore::further_shards = 0;

namespace {

constinit thread_local bool thread_ends = false;

// A hash table by key, because a thread may use a thousand arenas in turn.
using Caches = std::array<ThreadCache*, 64>;
constinit Caches no_caches{};  // never written to
// A pointer, because a shared object that is loaded later gets little static TLS.
constinit thread_local Caches* caches_of_thread = &no_caches;

ThreadCache*& first_of(std::uint64_t key) {
  return (*caches_of_thread)[key % caches_of_thread->size()];
}

struct EndOfThread {
  EndOfThread() = default;
  EndOfThread(const EndOfThread&) = delete;
  EndOfThread& operator=(const EndOfThread&) = delete;
  ~EndOfThread() {
    leave_scopes_of_thread();
    thread_ends = true;
    last_arena.key = kNoKey;
    if (caches_of_thread == &no_caches) return;
    for (ThreadCache*& head : *caches_of_thread) {
      while (ThreadCache* cache = head) {
        head = cache->next_of_thread;
        cache->core->release_cache(cache);
      }
    }
    jemalloc::deallocate_record(std::exchange(caches_of_thread, &no_caches));
  }
  void construct() noexcept {}  // the first use in a thread constructs it
};
thread_local EndOfThread end_of_thread;

}  // namespace

// Makes this the thread's last arena.  Returns false if the thread cannot have a cache of it.
bool ArenaCore::find_thread_cache() {
  if (thread_ends) return false;
  ThreadCache* const cache = cache_of_thread();
  if (cache == nullptr) return make_thread_cache();
  cache->use();
  return true;
}

void ThreadCache::flush() {
  for (unsigned size_class = 0; size_class < FreeBlocks::kClasses; ++size_class)
    while (void* block = free_blocks.take(size_class))
      cowshed_je_sdallocx(block, FreeBlocks::size_of(size_class), flags);
  jemalloc::flush_cache(jemalloc_cache);
}

// Releases this thread's caches of arenas that are closed.  release_cache() takes the arena's
// mutex, and so waits for a thread that is closing one.
void ArenaCore::drop_old_caches() {
  for (ThreadCache*& head : *caches_of_thread) {
    for (ThreadCache** link = &head; *link != nullptr;) {
      ThreadCache* cache = *link;
      if (cache->core->is_open() && cache->core->key() == cache->key) {
        link = &cache->next_of_thread;
      } else {
        *link = cache->next_of_thread;
        cache->core->release_cache(cache);
      }
    }
  }
}

bool ArenaCore::make_thread_cache() {
  end_of_thread.construct();
  if (caches_of_thread == &no_caches) {
    void* table = jemalloc::allocate_record(sizeof(Caches));
    if (table == nullptr) return false;
    caches_of_thread = new (table) Caches{};
  }
  drop_old_caches();
  const std::lock_guard lock(mutex_);
  if (state() != ArenaState::open) return false;
  unsigned number = 0;
  // jemalloc has 4,094 of them.  Later threads allocate without a cache, under the mutex.
  if (jemalloc::create_cache(number) != 0) return false;
  void* record = jemalloc::allocate_record(sizeof(ThreadCache));
  if (record == nullptr) {
    jemalloc::destroy_cache(number);
    return false;
  }
  Shard& shard = choose_shard();
  ++shard.users;
  const unsigned from = shard.jemalloc_arena;
  const int flags = jemalloc::arena_flags(from) | jemalloc::cache_flags(number);
  ThreadCache*& head = first_of(key());
  auto* cache =
      new (record) ThreadCache{this, key(), number, from, flags, caches_, head, &last_arena.busy};
  head = caches_ = cache;
  cache->use();
  return true;
}

// Of this opening of the arena; nullptr: none.
ThreadCache* ArenaCore::cache_of_thread() const {
  ThreadCache* cache = first_of(key());
  while (cache != nullptr && cache->key != key()) cache = cache->next_of_thread;
  return cache;
}

// The shard that this thread has, in a cache or a scope; else one that no thread has; else the one
// that the fewest have.
ArenaCore::Shard& ArenaCore::choose_shard() {
  const auto with = [this](unsigned jemalloc_arena) {
    return std::ranges::find(shards(), jemalloc_arena, &Shard::jemalloc_arena);
  };
  if (thread_scope.core == this && thread_scope.key == key())
    return *with(thread_scope.jemalloc_arena);
  if (const ThreadCache* cache = cache_of_thread()) return *with(cache->jemalloc_arena);
  Shard& fewest = *std::ranges::min_element(shards(), {}, &Shard::users);
  return fewest.users > 0 && add_shard() ? shards().back() : fewest;
}

bool ArenaCore::add_shard() {
  const auto cpus = static_cast<std::size_t>(std::max(sysconf(_SC_NPROCESSORS_ONLN), 1L));
  const std::size_t count = shards().size();
  if (count >= std::clamp(cpus, kLeastShards, kMostShards)) return false;
  if (further_shards.fetch_add(1) < kMostFurtherShards && create_shard(shards_[count]) == 0) {
    jemalloc::grow_by(shards_[count].jemalloc_arena, kPiece);
    shard_count_ = count + 1;
    return true;
  }
  --further_shards;
  return false;
}

void ArenaCore::forget_shards() {
  further_shards -= std::max(static_cast<int>(shard_count_.exchange(0)) - 1, 0);
}

void ArenaCore::drop_user(unsigned jemalloc_arena) {
  --std::ranges::find(shards(), jemalloc_arena, &Shard::jemalloc_arena)->users;
}

jemalloc::ArenaCounts ArenaCore::count_live() const {
  jemalloc::ArenaCounts all;
  for (const Shard& shard : shards()) {
    const auto counts = jemalloc::count_arena(shard.jemalloc_arena);
    all.live_bytes += counts.live_bytes;
    all.live_blocks += counts.live_blocks;
  }
  return all;
}

void ArenaCore::prepare_thread() { end_of_thread.construct(); }

void ArenaCore::release_cache(ThreadCache* cache) {
  {
    const std::lock_guard lock(mutex_);
    ThreadCache** link = &caches_;
    while (*link != nullptr && *link != cache) link = &(*link)->next_of_arena;
    if (*link != nullptr) {
      *link = cache->next_of_arena;
      drop_user(cache->jemalloc_arena);
      cache->flush();
      jemalloc::destroy_cache(cache->jemalloc_cache);
    }
  }
  jemalloc::deallocate_record(cache);
}

}  // namespace cowshed::internal
