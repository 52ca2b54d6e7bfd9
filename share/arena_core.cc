#include <algorithm>
#include <array>
#include <cerrno>
#include <linux/membarrier.h>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/share/address_range.h>
#include <cowshed/share/arena_core.h>
#include <cowshed/share/arena_table.h>
#include <cowshed/share/collapse.h>
#include <cowshed/share/freeze.h>
#include <cowshed/share/malloc_route.h>

namespace cowshed {

constinit thread_local internal::LastArena internal::last_arena;

namespace {

std::atomic<std::uint64_t> next_key = 1;

constinit thread_local bool thread_ends = false;

struct CachesOfThread {
  ThreadCache* first = nullptr;

  ~CachesOfThread() {
    thread_ends = true;
    internal::last_arena.key = internal::kNoKey;
    while (ThreadCache* cache = first) {
      first = cache->next_of_thread;
      cache->core->retire(cache);
    }
  }
};

thread_local CachesOfThread caches_of_thread;

int membarrier(int command) { return static_cast<int>(syscall(SYS_membarrier, command, 0, 0)); }

Expected<void> register_membarrier(const std::string& name) {
  if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0) {
    return make_error(ErrorCode::unsupported,
                      "arena '" + name + "': this kernel or sandbox has no membarrier(2)");
  }
  return {};
}

// Tells of a step before which `before` bytes were done, and `after` are left after it.
Progress part_of(const Progress& whole, std::size_t before, std::size_t after) {
  if (!whole) {
    return nullptr;
  }
  return [=, &whole](std::size_t done, std::size_t total) {
    whole(before + done, before + total + after);
  };
}

ArenaState frozen_state(FreezeMode mode) {
  return mode == FreezeMode::strict ? ArenaState::strict : ArenaState::lenient;
}

}  // namespace

Expected<void> ArenaCore::open(const ArenaOptions& options) {
  if (auto registered = register_membarrier(options.name); !registered) {
    return registered;
  }
  auto mapping = map_new_arena(options);
  if (!mapping) {
    return tl::make_unexpected(std::move(mapping.error()));
  }
  std::fill(name_.begin(), name_.end(), '\0');
  std::copy(options.name.begin(), options.name.end(), name_.begin());
  huge_pages_ = options.huge_pages;
  was_entered_ = false;
  auto started = start_jemalloc(*mapping, 0);
  if (!started) {
    unmap_arena(mapping->begin, mapping->size);
    ::close(mapping->fd);
    return started;
  }
  fds_[0] = mapping->fd;
  fd_count_ = 1;
  begin_ = mapping->begin;
  end_ = mapping->begin + mapping->size;
  widen_hull(begin(), end());
  frozen_bytes_ = 0;
  generation_ = 0;
  mode_ = FreezeMode::strict;
  successor_ = nullptr;
  dropped_frees_ = 0;
  past_ = {};
  serial_ = key_ = next_key.fetch_add(1);
  resume();
  return {};
}

void ArenaCore::adopt(const ArenaMapping& mapping, const std::string& name, std::size_t used,
                      FreezeMode mode, std::uint32_t generation, Frozen past) {
  std::fill(name_.begin(), name_.end(), '\0');
  std::copy(name.begin(), name.end(), name_.begin());
  huge_pages_ = true;
  fds_[0] = mapping.fd;
  fd_count_ = 1;
  begin_ = mapping.begin;
  end_ = open_begin_ = open_end_ = mapping.begin + mapping.size;
  widen_hull(begin(), end());
  frozen_bytes_ = used;
  generation_ = generation;
  mode_ = mode;
  successor_ = nullptr;
  dropped_frees_ = 0;
  past_ = std::move(past);
  serial_ = key_ = next_key.fetch_add(1);
  state_.store(frozen_state(mode), std::memory_order_release);
}

Expected<void> ArenaCore::start_jemalloc(const ArenaMapping& mapping, std::size_t first) {
  auto opened = memory_.open(mapping, first, huge_pages_, name_.data());
  if (!opened) {
    return opened;
  }
  // What is left out jemalloc takes as "cannot": no page is given back behind the arena's back.
  hooks_ = Hooks{};
  hooks_.alloc = &extend;
  hooks_.commit = [](jemalloc::ExtentHooks* hooks, void* extent, std::size_t, std::size_t offset,
                     std::size_t length, unsigned) {
    return !static_cast<Hooks*>(hooks)->core->memory_.commit(
        reinterpret_cast<std::uintptr_t>(extent) + offset, length);
  };
  hooks_.decommit = [](jemalloc::ExtentHooks* hooks, void* extent, std::size_t, std::size_t offset,
                       std::size_t length, unsigned) {
    static_cast<Hooks*>(hooks)->core->memory_.decommit(
        reinterpret_cast<std::uintptr_t>(extent) + offset, length);
    return false;
  };
  hooks_.split = [](jemalloc::ExtentHooks*, void*, std::size_t, std::size_t, std::size_t, bool,
                    unsigned) { return false; };
  hooks_.merge = [](jemalloc::ExtentHooks*, void*, std::size_t, void*, std::size_t, bool,
                    unsigned) { return false; };
  hooks_.core = this;
  top_ = first;
  full_ = false;
  scopes_ = 0;
  if (const int error = jemalloc::create_arena(&hooks_, jemalloc_arena_)) {
    memory_.close();
    return system_error(who() + ": jemalloc cannot add an arena", error);
  }
  open_begin_ = mapping.begin + first;
  open_end_ = mapping.begin + mapping.size;
  return {};
}

// Also gives up its records, so that fork() need not copy their page tables: that, not the data,
// is what makes fork() slow with many small objects.
void ArenaCore::stop_jemalloc() {
  while (ThreadCache* cache = caches_) {
    caches_ = cache->next_of_arena;
    jemalloc::destroy_cache(cache->jemalloc_cache);
  }
  jemalloc::destroy_arena(jemalloc_arena_);
  jemalloc::forget_addresses(open_begin(), end());
  memory_.close();
  open_begin_ = end();
}

// Gives jemalloc the next piece of the range; memory is behind it once commit() was called.  May
// run in several threads at once.
void* ArenaCore::extend(jemalloc::ExtentHooks* hooks, void* address, std::size_t size,
                        std::size_t alignment, bool* zero, bool* commit, unsigned) {
  ArenaCore& core = *static_cast<Hooks*>(hooks)->core;
  const std::uintptr_t begin = core.memory_.begin();
  const std::size_t capacity = core.memory_.capacity();
  std::size_t top = core.top_.load(std::memory_order_relaxed);
  std::size_t start = 0;
  do {
    start = ((begin + top + alignment - 1) & ~(alignment - 1)) - begin;
    if (start > capacity || size > capacity - start) {
      core.full_.store(true, std::memory_order_relaxed);
      return nullptr;
    }
    if (address != nullptr && reinterpret_cast<std::uintptr_t>(address) != begin + start) {
      return nullptr;
    }
  } while (!core.top_.compare_exchange_weak(top, start + size, std::memory_order_relaxed));
  if (*commit && !core.memory_.commit(begin + start, size)) {
    // Else asking often while memory is short would use up the range.
    std::size_t taken = start + size;
    core.top_.compare_exchange_strong(taken, top, std::memory_order_relaxed);
    return nullptr;
  }
  *zero = true;  // never used before, and a memfd reads as zeros
  return reinterpret_cast<void*>(begin + start);
}

// Makes last_used this arena's; false: this thread has no cache of it, now or ever.
bool ArenaCore::find_thread_cache() {
  if (thread_ends) {
    return false;
  }
  const std::uint64_t wanted = key();
  for (ThreadCache* cache = caches_of_thread.first; cache != nullptr;
       cache = cache->next_of_thread) {
    if (cache->key == wanted) {
      cache->use();
      return true;
    }
  }
  return make_thread_cache();
}

void ThreadCache::flush() {
  for (unsigned shelf = 0; shelf < internal::Stock::kShelves; ++shelf) {
    while (void* block = stock.take(shelf)) {
      cowshed_je_sdallocx(block, internal::Stock::size_of(shelf), flags);
    }
  }
  jemalloc::flush_cache(jemalloc_cache);
}

// Those of arenas that are closed, which will not be used again.  Whoever closes one now holds its
// mutex, which retire() takes.
void ArenaCore::drop_old_caches() {
  for (ThreadCache** link = &caches_of_thread.first; *link != nullptr;) {
    ThreadCache* cache = *link;
    if (cache->core->is_open() && cache->core->key() == cache->key) {
      link = &cache->next_of_thread;
    } else {
      *link = cache->next_of_thread;
      cache->core->retire(cache);
    }
  }
}

bool ArenaCore::make_thread_cache() {
  drop_old_caches();
  const std::lock_guard lock(mutex_);
  if (state() != ArenaState::open) {
    return false;
  }
  unsigned number = 0;
  // jemalloc has 4,094 of them; whoever comes later works uncached, under the mutex.
  if (jemalloc::create_cache(number) != 0) {
    return false;
  }
  void* record = jemalloc::allocate_record(sizeof(ThreadCache));
  if (record == nullptr) {
    jemalloc::destroy_cache(number);
    return false;
  }
  const int flags = jemalloc::arena_flags(jemalloc_arena_) | jemalloc::cache_flags(number);
  auto* cache = new (record) ThreadCache{
      this, key(), number, flags, caches_, caches_of_thread.first, &internal::last_arena.busy};
  caches_of_thread.first = caches_ = cache;
  cache->use();
  return true;
}

void ArenaCore::prepare_thread() { caches_of_thread.first = caches_of_thread.first; }

void ArenaCore::retire(ThreadCache* cache) {
  {
    const std::lock_guard lock(mutex_);
    ThreadCache** link = &caches_;
    while (*link != nullptr && *link != cache) {
      link = &(*link)->next_of_arena;
    }
    if (*link != nullptr) {
      *link = cache->next_of_arena;
      cache->flush();
      jemalloc::destroy_cache(cache->jemalloc_cache);
    }
  }
  jemalloc::deallocate_record(cache);
}

void* internal::ArenaFront::take_slowly(std::size_t size, std::size_t alignment) {
  auto& core = static_cast<ArenaCore&>(*this);
  const bool known = last_arena.key == core.key();
  if (!known && core.find_thread_cache()) {
    return take(size, alignment);
  }
  return core.take_uncached(size, alignment);
}

void* ArenaCore::take_uncached(std::size_t size, std::size_t alignment) {
  std::unique_lock lock(mutex_);  // whoever paused the arena has ended
  if (state() == ArenaState::open) {
    full_ = false;  // why it fails now is asked, not why it once failed
    memory_.forget_shortage();
    const int flags = jemalloc::arena_flags(jemalloc_arena_) | jemalloc::kNoCacheFlags |
                      internal::alignment_flags(alignment);
    // What was freed serves other sizes after it was put together again.
    for (const bool purged : {false, true}) {
      if (purged) {
        jemalloc::purge_arena(jemalloc_arena_);
      }
      if (void* block = cowshed_je_mallocx(internal::jemalloc_size(size, alignment), flags)) {
        return block;
      }
    }
  }
  ArenaCore* next = frozen() ? successor() : nullptr;
  if (next == nullptr) {
    refuse(size);  // while it is so: another thread may thaw the arena
  }
  lock.unlock();
  return next->take(size, alignment);
}

ArenaCore* ArenaCore::successor() const {
  ArenaCore* next = successor_.load(std::memory_order_acquire);
  return next != nullptr && next->serial() == successor_serial_.load() ? next : nullptr;
}

void internal::ArenaFront::give_slowly(void* block) noexcept {
  auto& core = static_cast<ArenaCore&>(*this);
  if (core.contains(block)) {
    core.give_unsized(block);
  } else if (ArenaCore* other = find_arena(block)) {  // a successor's
    other->give_unsized(block);
  }
}

void ArenaCore::give_unsized(void* block) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(block);
  const bool open_part = address >= open_begin() && address < open_end_.load();
  const bool known = internal::last_arena.key == key();
  if (open_part && (known || find_thread_cache())) {
    const internal::Busy busy;
    if (internal::last_arena.key == take_key_.load(std::memory_order_acquire)) {
      cowshed_je_dallocx(block, internal::last_arena.flags);
      return;
    }
  }
  const std::lock_guard lock(mutex_);  // whoever paused the arena has ended
  if (state() == ArenaState::open && address >= open_begin()) {
    cowshed_je_dallocx(block, jemalloc::arena_flags(jemalloc_arena_) | jemalloc::kNoCacheFlags);
  } else {
    dropped_frees_.fetch_add(1, std::memory_order_relaxed);
  }
}

tl::unexpected<Error> ArenaCore::not_inherited_error() const {
  return make_error(ErrorCode::not_inherited,
                    who() +
                        " was not frozen when this process was forked; freeze() it before the "
                        "fork");
}

void ArenaCore::refuse(std::size_t size) const {
  switch (state()) {
    case ArenaState::not_inherited: throw ArenaBadAlloc(not_inherited_error().value());
    case ArenaState::open: break;
    default:
      if (successor_.load(std::memory_order_relaxed) != nullptr && successor() == nullptr) {
        throw ArenaBadAlloc({ErrorCode::arena_frozen, 0,
                             who() +
                                 " is frozen and its successor destroyed: nothing can be allocated "
                                 "from it any more; keep the .successor as long as that is done, "
                                 "or thaw() the arena"});
      }
      throw ArenaBadAlloc({ErrorCode::arena_frozen, 0,
                           who() +
                               " is frozen: nothing can be allocated from it any more; freeze it "
                               "with a .successor, thaw() it, or allocate before freeze()"});
  }
  const std::string request = " for a request for " + std::to_string(size) + " bytes";
  switch (memory_.shortage()) {
    case ArenaMemory::Shortage::cgroup:
      throw ArenaBadAlloc({ErrorCode::out_of_memory, 0,
                           who() + ": the memory cgroup, or the machine, has no room" + request +
                               "; raise its limit, or give the arena less data"});
    case ArenaMemory::Shortage::kernel:
      throw ArenaBadAlloc({ErrorCode::out_of_memory, ENOMEM,
                           who() + ": the kernel has no memory" + request +
                               "; see vm.overcommit_memory and free memory"});
    case ArenaMemory::Shortage::none: break;
  }
  if (!full_.load(std::memory_order_relaxed)) {
    throw std::bad_alloc();  // ordinary memory, for jemalloc's records
  }
  throw ArenaBadAlloc({ErrorCode::capacity_exceeded, 0,
                       who() + ": capacity of " + std::to_string(end() - begin()) +
                           " bytes exceeded by a request for " + std::to_string(size) +
                           ", create it with a larger .capacity"});
}

Expected<unsigned> ArenaCore::enter_scope() {
  if (state() == ArenaState::not_inherited) {
    return not_inherited_error();
  }
  if (state() != ArenaState::open) {
    return make_error(ErrorCode::arena_frozen, who() + " is frozen: no scope can begin");
  }
  if (full_.exchange(false, std::memory_order_relaxed)) {
    jemalloc::purge_arena(jemalloc_arena_);  // what was freed since serves other sizes
  }
  ++scopes_;
  was_entered_ = true;
  return jemalloc_arena_;
}

void ArenaCore::leave_scope(std::uint64_t key) {
  if (key == key_) {
    --scopes_;
  }
}

// From here to resume() no thread is inside jemalloc for this arena, but for ArenaScopes.
void ArenaCore::pause() {
  state_.store(ArenaState::paused);
  close_fast_paths();
  membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
  for (ThreadCache* cache = caches_; cache != nullptr; cache = cache->next_of_arena) {
    while (cache->busy->load(std::memory_order_acquire)) {
      sched_yield();
    }
    cache->flush();
  }
}

void ArenaCore::resume() {
  state_.store(ArenaState::open, std::memory_order_release);
  take_key_.store(key(), std::memory_order_release);
  give_key_.store(generation_ == 0 ? key() : 0, std::memory_order_release);
}

void ArenaCore::close_fast_paths() {
  take_key_ = 0;
  give_key_ = 0;
}

Expected<void> ArenaCore::freeze(const FreezeOptions& options, ArenaCore* successor) {
  if (state() == ArenaState::not_inherited) {
    return not_inherited_error();
  }
  if (!is_open()) {
    if (state() == frozen_state(options.mode) && successor == nullptr) {
      return {};
    }
    if (state() == frozen_state(options.mode)) {
      return make_error(ErrorCode::arena_frozen,
                        who() + " is frozen already: a .successor is named when it is frozen");
    }
    return make_error(ErrorCode::arena_frozen, who() + " is already frozen in the other mode");
  }
  if (generation_ > 0 && options.mode != mode_) {
    return make_error(ErrorCode::arena_frozen, who() + " was frozen in the other mode before");
  }
  for (const ArenaCore* next = successor; next != nullptr; next = next->successor()) {
    if (next == this) {
      return make_error(ErrorCode::invalid_argument,
                        who() + " cannot be its own .successor, directly or by others");
    }
  }
  auto sealed = seal(options.mode, options.progress);
  if (sealed && successor != nullptr) {
    successor_serial_ = successor->serial();
    successor_ = successor;
  }
  return sealed;
}

// Ends the open part: what it holds becomes a new generation, with what was written privately.
Expected<void> ArenaCore::seal(FreezeMode mode, const Progress& progress) {
  if (scopes_ > 0) {
    return make_error(ErrorCode::in_use,
                      who() + ": " + std::to_string(scopes_) +
                          " ArenaScope(s) have not ended; end them, then freeze");
  }
  const std::size_t first = frozen_bytes();
  std::vector<Run> renewed;
  if (first > 0) {
    auto runs = written_runs(begin(), first, who());
    if (!runs) {
      return tl::make_unexpected(std::move(runs.error()));
    }
    renewed = std::move(*runs);
  }
  pause();
  jemalloc::purge_arena(jemalloc_arena_);
  Frozen now = past_;
  const auto counts = jemalloc::count_arena(jemalloc_arena_);
  now.live_bytes += counts.live_bytes;
  now.live_allocations += counts.live_blocks;
  const auto holes = memory_.trim();
  if (generation_ > 0 && renewed.empty() && memory_.used() == first) {
    abandon_reopened();
    return {};
  }
  // So many files are mapped that one with everything is due.
  const bool all_renewed = fd_count_ > kMostSegments;
  if (all_renewed) {
    renewed = {{0, first}};
  }
  const auto copied = without(renewed, past_.holes);
  std::erase_if(now.misses, [&](const HugePageMiss& miss) {
    return std::any_of(copied.begin(), copied.end(), [&](const Run& run) {
      return miss.offset >= run.begin && miss.offset < run.end;
    });
  });
  now.on_disk -= std::min(now.on_disk, size_of(copied));
  now.holes.insert(now.holes.end(), holes.begin(), holes.end());
  std::size_t collapsed = 0;
  if (huge_pages_) {
    collapsed = memory_.taken() - memory_.huge_bytes();
    memory_.collapse(part_of(progress, 0, size_of(copied)));
  }
  now.taken += memory_.taken();
  const auto misses = memory_.misses();
  now.misses.insert(now.misses.end(), misses.begin(), misses.end());
  const ArenaMapping mapping = {fds_[fd_count_ - 1], begin(), end() - begin()};
  const Generation generation = {mapping, first, memory_.used()};
  bool open_again = true;  // else it stays paused
  auto sealed =
      copy_runs(mapping, copied, huge_pages_, who(), part_of(progress, collapsed, 0), now.misses);
  if (sealed) {
    sealed = seal_generation(generation, mode, who(), open_again);
  }
  if (!sealed) {
    discard_copies(mapping, first);
    if (open_again) {
      resume();
    }
    return sealed;
  }
  // From here there is no way back.
  auto renewed_all = map_copies(mapping, renewed, mode, who());
  frozen_bytes_ = generation.used;
  stop_jemalloc();
  if (all_renewed) {
    close_segments(1);
    now.on_disk = 0;
  }
  past_ = std::move(now);
  mode_ = mode;
  ++generation_;
  state_.store(frozen_state(mode), std::memory_order_release);
  return renewed_all;
}

Expected<void> ArenaCore::expect_frozen() const {
  if (state() == ArenaState::not_inherited) {
    return not_inherited_error();
  }
  if (!frozen()) {
    return make_error(ErrorCode::arena_not_frozen,
                      who() + (generation_ == 0 ? " is not frozen; freeze() it first"
                                                : " is thawed; refreeze() it first"));
  }
  return {};
}

Expected<void> ArenaCore::thaw() {
  if (auto expected = expect_frozen(); !expected) {
    return expected;
  }
  if (begin() + frozen_bytes() == end()) {
    return make_error(ErrorCode::capacity_exceeded,
                      who() + ": nothing of its capacity is unused; create it with a larger one");
  }
  return reopen();
}

Expected<void> ArenaCore::reopen() {
  if (auto registered = register_membarrier(name()); !registered) {  // not by adopt()
    return registered;
  }
  const std::size_t first = frozen_bytes();
  auto mapping = map_generation(name(), begin(), end() - begin(), first);
  if (!mapping) {
    return tl::make_unexpected(std::move(mapping.error()));
  }
  auto started = start_jemalloc(*mapping, first);
  if (!started) {
    unmap_generation(*mapping, first);
    return started;
  }
  fds_[fd_count_++] = mapping->fd;
  key_ = next_key.fetch_add(1);  // the caches of before are of another jemalloc arena
  resume();
  return {};
}

// Ends the open part as if it had never been.
void ArenaCore::abandon_reopened() {
  close_fast_paths();
  stop_jemalloc();
  unmap_generation({fds_[--fd_count_], begin(), end() - begin()}, frozen_bytes());
  state_.store(frozen_state(mode_), std::memory_order_release);
}

Expected<void> ArenaCore::refreeze(const Progress& progress) {
  if (is_open() && generation_ > 0) {
    return seal(mode_, progress);
  }
  if (auto expected = expect_frozen(); !expected) {
    return expected;
  }
  auto private_now = count_private_bytes(begin(), frozen_bytes(), who());
  if (!private_now) {
    return tl::make_unexpected(std::move(private_now.error()));
  }
  if (*private_now == 0) {
    return {};
  }
  if (auto reopened = reopen(); !reopened) {
    return reopened;
  }
  auto sealed = seal(mode_, progress);
  if (!sealed && is_open()) {
    abandon_reopened();
  }
  return sealed;
}

Expected<std::size_t> ArenaCore::collapse(const Progress& progress) {
  if (state() == ArenaState::not_inherited) {
    return not_inherited_error();
  }
  const bool open = state() == ArenaState::open;
  const std::size_t small = open ? memory_.taken() - memory_.huge_bytes() : 0;
  std::vector<std::size_t> missing;
  for (const HugePageMiss& miss : past_.misses) {
    missing.push_back(miss.offset / kHugePage);
  }
  std::sort(missing.begin(), missing.end());
  past_.misses.clear();
  collapse_ranges(begin(), missing, part_of(progress, 0, small), [&](std::size_t range, int error) {
    if (error != 0) {
      past_.misses.push_back({range * kHugePage, error});
    }
  });
  if (!open) {
    return past_.huge_bytes();
  }
  pause();
  memory_.collapse(part_of(progress, missing.size() * kHugePage, 0));
  const std::size_t huge = past_.huge_bytes() + memory_.huge_bytes();
  resume();
  return huge;
}

Expected<void> ArenaCore::prefault() const {
  if (auto expected = expect_frozen(); !expected) {
    return expected;
  }
  // Reading a hole would take memory for it.
  for (const Run& run : without({{0, frozen_bytes()}}, past_.holes)) {
    if (madvise(reinterpret_cast<void*>(begin() + run.begin), run.end - run.begin,
                MADV_POPULATE_READ) != 0) {
      return system_error(who() + ": MADV_POPULATE_READ", errno);
    }
  }
  return {};
}

Expected<std::size_t> ArenaCore::private_bytes() const {
  if (auto expected = expect_frozen(); !expected) {
    return tl::make_unexpected(std::move(expected.error()));
  }
  return count_private_bytes(begin(), frozen_bytes(), who());
}

void ArenaCore::close() {
  const ArenaState before = state_.exchange(ArenaState::vacant);
  close_fast_paths();
  if (before == ArenaState::open || before == ArenaState::paused) {
    stop_jemalloc();
  }
  if (before != ArenaState::not_inherited) {
    unmap_arena(begin(), end() - begin());
  }
  close_segments(0);
  begin_ = end_ = open_begin_ = open_end_ = 0;
  key_ = 0;
  past_ = {};
}

// Keeps the last `count`.
void ArenaCore::close_segments(std::size_t count) {
  const std::size_t closed = fd_count_ - count;
  for (std::size_t i = 0; i < closed; ++i) {
    ::close(fds_[i]);
  }
  std::copy(fds_.begin() + static_cast<std::ptrdiff_t>(closed),
            fds_.begin() + static_cast<std::ptrdiff_t>(fd_count_), fds_.begin());
  fd_count_ = count;
}

void ArenaCore::disown_after_fork() {
  ::close(fds_[--fd_count_]);  // else the child would keep the memory alive
  close_fast_paths();
  memory_.forget();
  caches_ = nullptr;
  scopes_ = 0;
  if (generation_ == 0) {
    open_begin_ = end();
    state_.store(ArenaState::not_inherited, std::memory_order_release);
    return;
  }
  // What was frozen before the thaw is here; the rest of the range is left reserved.
  (void)mmap(reinterpret_cast<void*>(open_begin()), end() - open_begin(), PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  open_begin_ = end();
  state_.store(frozen_state(mode_), std::memory_order_release);
}

ArenaStats ArenaCore::stats() {
  const std::lock_guard lock(mutex_);
  Frozen now = past_;
  if (state() == ArenaState::open) {
    pause();
    const auto counts = jemalloc::count_arena(jemalloc_arena_);
    resume();
    now.live_bytes += counts.live_bytes;
    now.live_allocations += counts.live_blocks;
    now.taken += memory_.taken();
    const auto misses = memory_.misses();
    now.misses.insert(now.misses.end(), misses.begin(), misses.end());
  }
  ArenaStats result;
  result.capacity = end() - begin();
  result.used = state() == ArenaState::not_inherited ? 0 : used();
  result.live_bytes = now.live_bytes;
  result.live_allocations = now.live_allocations;
  result.hole_bytes = now.taken - std::min(now.taken, now.live_bytes);
  for (const Run& hole : now.holes) {
    result.returned_bytes += hole.end - hole.begin;
  }
  result.dropped_frees = dropped_frees_.load(std::memory_order_relaxed);
  result.huge_page_bytes = now.huge_bytes();
  result.huge_page_misses = std::move(now.misses);
  result.generation = generation_;
  result.frozen = frozen();
  result.mode = mode_;
  return result;
}

}  // namespace cowshed
