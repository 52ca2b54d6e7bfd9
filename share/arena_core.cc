#include <algorithm>
#include <cerrno>
#include <cstring>
#include <linux/membarrier.h>
#include <sched.h>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/share/address_range.h>
#include <cowshed/share/arena_core.h>
#include <cowshed/share/freeze.h>

namespace cowshed {
namespace {

// jemalloc asks for ever larger pieces; beyond this the untouched rest of the last one, which is
// frozen as holes, would only grow.
constexpr std::size_t kGrowthLimit = 64_MiB;

std::atomic<std::uint64_t> next_key = 1;

struct CacheOfThread {
  ArenaCore* core;
  std::uint64_t key;
  ThreadCache* cache;
};

// The last arena that this thread used; constant-initialised, so that reading it costs no guard.
constinit thread_local CacheOfThread last_used = {nullptr, 0, nullptr};
constinit thread_local bool thread_ends = false;

struct CachesOfThread {
  std::vector<CacheOfThread> all;

  ~CachesOfThread() {
    thread_ends = true;
    last_used = {nullptr, 0, nullptr};
    for (const auto& [core, key, cache] : all) {
      core->retire(key, cache);
    }
  }
};

thread_local CachesOfThread caches_of_thread;

template <class T>
void add(std::atomic<T>& counter, T amount) {  // one writer: no locked instruction needed
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

// Marks a thread as inside jemalloc.  Two plain stores here, because freeze() makes all threads
// pass a barrier (membarrier) between changing the state and looking at `busy`.
class Busy {
 public:
  explicit Busy(ThreadCache& cache) : cache_(cache) {
    cache_.busy.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~Busy() { cache_.busy.store(false, std::memory_order_release); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  ThreadCache& cache_;
};

int membarrier(int command) { return static_cast<int>(syscall(SYS_membarrier, command, 0, 0)); }

}  // namespace

Expected<void> ArenaCore::open(const ArenaOptions& options) {
  if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0) {
    return make_error(ErrorCode::unsupported,
                      "arena '" + options.name + "': this kernel or sandbox has no membarrier(2)");
  }
  auto mapping = map_new_arena(options);
  if (!mapping) {
    return tl::make_unexpected(std::move(mapping.error()));
  }
  fd_ = mapping->fd;
  std::fill(name_.begin(), name_.end(), '\0');
  std::copy(options.name.begin(), options.name.end(), name_.begin());
  begin_ = mapping->begin;
  end_ = mapping->begin + mapping->size;
  top_ = 0;
  full_ = false;
  dropped_frees_ = 0;
  huge_page_bytes_ = 0;
  uncached_.allocations = uncached_.deallocations = 0;
  uncached_.bytes = 0;
  // Everything else is left out: jemalloc takes that as "cannot", so that no page is ever given
  // back, purged or decommitted behind the arena's back.
  hooks_ = Hooks{};
  hooks_.alloc = &extend;
  hooks_.split = [](jemalloc::ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, bool,
                    unsigned) { return false; };
  hooks_.merge = [](jemalloc::ExtentHooks*, void*, std::size_t, void*, std::size_t, bool,
                    unsigned) { return false; };
  hooks_.core = this;
  int error = jemalloc::create_arena(&hooks_, jemalloc_arena_);
  if (error == 0) {
    error = jemalloc::set_growth_limit(jemalloc_arena_, kGrowthLimit);
  }
  if (error != 0) {
    unmap_arena(mapping->begin, mapping->size);
    ::close(std::exchange(fd_, -1));
    begin_ = end_ = 0;
    return system_error("arena '" + options.name + "': jemalloc cannot add an arena", error);
  }
  key_ = next_key.fetch_add(1);
  state_.store(ArenaState::open, std::memory_order_release);
  return {};
}

// Gives jemalloc the next piece of the range.  May run in several threads at once.
void* ArenaCore::extend(jemalloc::ExtentHooks* hooks, void* address, std::size_t size,
                        std::size_t alignment, bool* zero, bool* commit, unsigned) {
  ArenaCore& core = *static_cast<Hooks*>(hooks)->core;
  const std::uintptr_t begin = core.begin();
  const std::size_t capacity = core.end() - begin;
  std::size_t top = core.top_.load(std::memory_order_relaxed);
  std::size_t start = 0;
  do {
    start = (top + alignment - 1) & ~(alignment - 1);  // 2 MiB aligned base: larger is refused
    if (alignment > kHugePage) {
      start = ((begin + start - 1) | (alignment - 1)) + 1 - begin;
    }
    if (start > capacity || size > capacity - start) {
      core.full_.store(true, std::memory_order_relaxed);
      return nullptr;
    }
    if (address != nullptr && reinterpret_cast<std::uintptr_t>(address) != begin + start) {
      return nullptr;
    }
  } while (!core.top_.compare_exchange_weak(top, start + size, std::memory_order_relaxed));
  *zero = true;  // never used before, and a memfd reads as zeros
  *commit = true;
  return reinterpret_cast<void*>(begin + start);
}

ThreadCache* ArenaCore::thread_cache() {
  const std::uint64_t key = key_.load(std::memory_order_relaxed);
  if (last_used.core == this && last_used.key == key) {
    return last_used.cache;
  }
  if (thread_ends) {
    return nullptr;
  }
  for (const auto& known : caches_of_thread.all) {
    if (known.core == this && known.key == key) {
      last_used = known;
      return known.cache;
    }
  }
  return make_thread_cache();
}

ThreadCache* ArenaCore::make_thread_cache() {
  const std::lock_guard lock(mutex_);
  if (state() != ArenaState::open) {
    return nullptr;
  }
  auto cache = std::make_unique<ThreadCache>();
  // jemalloc has 4,094 of them; whoever comes later works uncached, under the mutex.
  if (jemalloc::create_cache(cache->jemalloc_cache) != 0) {
    return nullptr;
  }
  const CacheOfThread entry = {this, key_.load(std::memory_order_relaxed), cache.get()};
  std::erase_if(caches_of_thread.all, [this](const auto& known) { return known.core == this; });
  caches_of_thread.all.push_back(entry);
  caches_.push_back(std::move(cache));
  last_used = entry;
  return entry.cache;
}

void ArenaCore::retire(std::uint64_t key, ThreadCache* cache) {
  const std::lock_guard lock(mutex_);
  if (key_ != key) {
    return;
  }
  if (state() == ArenaState::open) {
    jemalloc::destroy_cache(cache->jemalloc_cache);
  }
  add(uncached_.allocations, cache->allocations.load(std::memory_order_relaxed));
  add(uncached_.deallocations, cache->deallocations.load(std::memory_order_relaxed));
  add(uncached_.bytes, cache->bytes.load(std::memory_order_relaxed));
  std::erase_if(caches_, [cache](const auto& known) { return known.get() == cache; });
}

void* ArenaCore::do_allocate(std::size_t size, std::size_t alignment) {
  ThreadCache* cache = thread_cache();
  if (cache == nullptr) {
    return allocate_uncached(size, alignment);
  }
  void* block = nullptr;
  {
    const Busy busy(*cache);
    if (state() == ArenaState::open) {
      block = jemalloc::allocate(jemalloc_arena_, cache->jemalloc_cache, size, alignment);
    }
  }
  if (block == nullptr) {
    refuse(size);
  }
  add(cache->allocations, std::uint64_t{1});
  add(cache->bytes, size);
  return block;
}

void* ArenaCore::allocate_uncached(std::size_t size, std::size_t alignment) {
  const std::lock_guard lock(mutex_);
  if (state() != ArenaState::open) {
    refuse(size);
  }
  void* block = jemalloc::allocate(jemalloc_arena_, jemalloc::kNoCache, size, alignment);
  if (block == nullptr) {
    refuse(size);
  }
  add(uncached_.allocations, std::uint64_t{1});
  add(uncached_.bytes, size);
  return block;
}

void ArenaCore::do_deallocate(void* block, std::size_t size, std::size_t alignment) {
  if (state() == ArenaState::open) {
    ThreadCache* cache = thread_cache();
    if (cache == nullptr) {
      deallocate_uncached(block, size, alignment);
      return;
    }
    const Busy busy(*cache);
    if (state() == ArenaState::open) {
      jemalloc::deallocate(jemalloc_arena_, cache->jemalloc_cache, block, size, alignment);
      add(cache->deallocations, std::uint64_t{1});
      add(cache->bytes, std::size_t{0} - size);
      return;
    }
  }
  dropped_frees_.fetch_add(1, std::memory_order_relaxed);
}

void ArenaCore::deallocate_uncached(void* block, std::size_t size, std::size_t alignment) {
  const std::lock_guard lock(mutex_);
  if (state() != ArenaState::open) {
    dropped_frees_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  jemalloc::deallocate(jemalloc_arena_, jemalloc::kNoCache, block, size, alignment);
  add(uncached_.deallocations, std::uint64_t{1});
  add(uncached_.bytes, std::size_t{0} - size);
}

tl::unexpected<Error> ArenaCore::not_inherited_error() const {
  return make_error(ErrorCode::not_inherited,
                    "arena '" + std::string(name()) +
                        "' was not frozen when this process was forked; freeze() it before the "
                        "fork");
}

void ArenaCore::refuse(std::size_t size) const {
  const std::string who = "arena '" + std::string(name()) + "'";
  switch (state()) {
    case ArenaState::not_inherited: throw ArenaBadAlloc(not_inherited_error().value());
    case ArenaState::open: break;
    default:
      throw ArenaBadAlloc({ErrorCode::arena_frozen, 0,
                           who + " is frozen: nothing can be allocated from it any more; create "
                                 "another arena, or allocate before freeze()"});
  }
  if (!full_.load(std::memory_order_relaxed)) {
    throw std::bad_alloc();
  }  // ordinary memory
  throw ArenaBadAlloc({ErrorCode::capacity_exceeded, 0,
                       who + ": capacity of " + std::to_string(end() - begin()) +
                           " bytes exceeded by a request for " + std::to_string(size) +
                           ", create it with a larger .capacity"});
}

Expected<void> ArenaCore::freeze(FreezeMode mode) {
  const ArenaState wanted = mode == FreezeMode::strict ? ArenaState::strict : ArenaState::lenient;
  if (state() == ArenaState::not_inherited) {
    return not_inherited_error();
  }
  if (state() == wanted) {
    return {};
  }
  if (state() != ArenaState::open) {
    return make_error(ErrorCode::arena_frozen,
                      "arena '" + std::string(name()) + "' is already frozen in the other mode");
  }
  state_.store(ArenaState::freezing, std::memory_order_seq_cst);
  membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
  for (const auto& cache : caches_) {
    while (cache->busy.load(std::memory_order_acquire)) {
      sched_yield();
    }
  }
  const std::size_t to_keep = (used() + kHugePage - 1) & ~(kHugePage - 1);
  auto huge = freeze_mapping({fd_, begin(), end() - begin()}, to_keep, mode, name());
  if (!huge) {
    state_.store(ArenaState::open, std::memory_order_release);
    return tl::make_unexpected(std::move(huge.error()));
  }
  huge_page_bytes_ = *huge;
  top_ = to_keep;
  // Nothing is allocated from here on, so the records go, and fork() need not copy their page
  // tables: that, not the data, is what makes fork() slow with many small objects.
  release_jemalloc();
  state_.store(wanted, std::memory_order_release);
  return {};
}

void ArenaCore::release_jemalloc() {
  for (const auto& cache : caches_) {
    jemalloc::destroy_cache(cache->jemalloc_cache);
  }
  jemalloc::destroy_arena(jemalloc_arena_);
}

void ArenaCore::close() {
  const ArenaState before = state_.exchange(ArenaState::vacant);
  if (before == ArenaState::open) {
    release_jemalloc();
  }
  if (before != ArenaState::not_inherited) {
    unmap_arena(begin(), end() - begin());
    ::close(fd_);
  }
  fd_ = -1;
  begin_ = end_ = 0;
  key_ = 0;
  caches_.clear();
}

void ArenaCore::disown_after_fork() {
  state_.store(ArenaState::not_inherited, std::memory_order_release);
  ::close(std::exchange(fd_, -1));  // else the child would keep the memory alive
}

ArenaStats ArenaCore::stats() {
  const std::lock_guard lock(mutex_);
  ArenaStats result;
  result.capacity = end() - begin();
  result.used = used();
  result.huge_page_bytes = huge_page_bytes_;
  result.frozen = frozen();
  result.mode = state() == ArenaState::lenient ? FreezeMode::lenient : FreezeMode::strict;
  result.dropped_frees = dropped_frees_.load(std::memory_order_relaxed);
  const auto count = [&result](const ThreadCache& cache) {
    result.live_bytes += cache.bytes.load(std::memory_order_relaxed);
    result.live_allocations += cache.allocations.load(std::memory_order_relaxed) -
                               cache.deallocations.load(std::memory_order_relaxed);
  };
  count(uncached_);
  for (const auto& cache : caches_) {
    count(*cache);
  }
  return result;
}

}  // namespace cowshed
