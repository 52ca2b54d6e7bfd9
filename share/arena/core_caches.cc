#include <array>
#include <mutex>
#include <new>
#include <utility>

#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/malloc_route.h>

namespace cowshed {

constinit thread_local internal::LastArena internal::last_arena;

namespace {

constinit thread_local bool thread_ends = false;

// By key: a thread may use a thousand arenas in turn.
using Caches = std::array<ThreadCache*, 64>;
constinit Caches no_caches{};  // never written to
// Behind a pointer: there is little static TLS for a shared object that is loaded later.
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
    internal::last_arena.key = internal::kNoKey;
    if (caches_of_thread == &no_caches) return;
    for (ThreadCache*& head : *caches_of_thread) {
      while (ThreadCache* cache = head) {
        head = cache->next_of_thread;
        cache->core->retire(cache);
      }
    }
    jemalloc::deallocate_record(std::exchange(caches_of_thread, &no_caches));
  }
  void await() noexcept {}  // the first use in a thread
};
thread_local EndOfThread end_of_thread;

}  // namespace

// Makes last_used this arena's; false: this thread has no cache of it, now or ever.
bool ArenaCore::find_thread_cache() {
  if (thread_ends) return false;
  const std::uint64_t wanted = key();
  for (ThreadCache* cache = first_of(wanted); cache != nullptr; cache = cache->next_of_thread) {
    if (cache->key == wanted) {
      cache->use();
      return true;
    }
  }
  return make_thread_cache();
}

void ThreadCache::flush() {
  for (unsigned shelf = 0; shelf < internal::Stock::kShelves; ++shelf)
    while (void* block = stock.take(shelf))
      cowshed_je_sdallocx(block, internal::Stock::size_of(shelf), flags);
  jemalloc::flush_cache(jemalloc_cache);
}

// Those of arenas that are closed, which will not be used again.  Whoever closes one now holds its
// mutex, which retire() takes.
void ArenaCore::drop_old_caches() {
  for (ThreadCache*& head : *caches_of_thread) {
    for (ThreadCache** link = &head; *link != nullptr;) {
      ThreadCache* cache = *link;
      if (cache->core->is_open() && cache->core->key() == cache->key) {
        link = &cache->next_of_thread;
      } else {
        *link = cache->next_of_thread;
        cache->core->retire(cache);
      }
    }
  }
}

bool ArenaCore::make_thread_cache() {
  end_of_thread.await();
  if (caches_of_thread == &no_caches) {
    void* table = jemalloc::allocate_record(sizeof(Caches));
    if (table == nullptr) return false;
    caches_of_thread = new (table) Caches{};
  }
  drop_old_caches();
  const std::lock_guard lock(mutex_);
  if (state() != ArenaState::open) return false;
  unsigned number = 0;
  // jemalloc has 4,094 of them; whoever comes later works uncached, under the mutex.
  if (jemalloc::create_cache(number) != 0) return false;
  void* record = jemalloc::allocate_record(sizeof(ThreadCache));
  if (record == nullptr) {
    jemalloc::destroy_cache(number);
    return false;
  }
  const int flags = jemalloc::arena_flags(jemalloc_arena_) | jemalloc::cache_flags(number);
  ThreadCache*& head = first_of(key());
  auto* cache = new (record)
      ThreadCache{this, key(), number, flags, caches_, head, &internal::last_arena.busy};
  head = caches_ = cache;
  cache->use();
  return true;
}

void ArenaCore::prepare_thread() { end_of_thread.await(); }

void ArenaCore::retire(ThreadCache* cache) {
  {
    const std::lock_guard lock(mutex_);
    ThreadCache** link = &caches_;
    while (*link != nullptr && *link != cache) link = &(*link)->next_of_arena;
    if (*link != nullptr) {
      *link = cache->next_of_arena;
      cache->flush();
      jemalloc::destroy_cache(cache->jemalloc_cache);
    }
  }
  jemalloc::deallocate_record(cache);
}

}  // namespace cowshed
