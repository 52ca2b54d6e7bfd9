#include <algorithm>
#include <cerrno>
#include <linux/membarrier.h>
#include <new>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/malloc_route.h>
#include <cowshed/share/arena/mapping.h>

// How an arena is opened, closed, paused and inherited, and its statistics.
namespace cowshed::internal {
namespace {

int membarrier(int command) { return static_cast<int>(syscall(SYS_membarrier, command, 0, 0)); }

}  // namespace

std::uint64_t ArenaCore::new_key() {
  static constinit std::atomic<std::uint64_t> next = 1;
  return next.fetch_add(1);
}

tl::unexpected<Error> ArenaCore::no_membarrier(const std::string& name) {
  return make_error(ErrorCode::unsupported,
                    "arena '" + name + "': this kernel or sandbox has no membarrier(2)");
}

Expected<void> ArenaCore::register_membarrier(const std::string& name) {
  if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0) return no_membarrier(name);
  return {};
}

bool ArenaCore::prepare() {
  if (resource() == nullptr) {
    void* record = jemalloc::allocate_record(sizeof(ArenaResource));
    resource_ = record == nullptr ? nullptr : new (record) ArenaResource(this);
  }
  return resource() != nullptr;
}

Expected<void> ArenaCore::open(const ArenaOptions& options) {
  TRY_VOID(register_membarrier(options.name));
  Description description = {.name = options.name};
  TRY(const ArenaMapping mapping, map_new_arena(options));
  description.begin = mapping.begin;
  description.capacity = mapping.size;
  set_name(options.name);
  huge_pages_ = options.huge_pages;
  const auto give_up = [&] {
    unmap_arena(mapping.begin, mapping.size);
    mapping.file.close();
  };
  TRY_VOID(start_jemalloc_or(give_up, mapping, 0));
  open_file_ = mapping.file;
  known_elsewhere_ = false;
  become(std::move(description));
  resume();
  return {};
}

void ArenaCore::adopt(Description description) {
  huge_pages_ = true;
  open_file_ = {};
  known_elsewhere_ = true;
  open_begin_ = description.begin + description.capacity;
  become(std::move(description));
  state_.store(frozen_state(mode_), std::memory_order_release);
}

void ArenaCore::set_name(const std::string& name) {
  std::fill(name_.begin(), name_.end(), '\0');
  std::copy(name.begin(), name.end(), name_.begin());
}

void ArenaCore::become(Description description) {
  set_name(description.name);
  begin_ = description.begin;
  end_ = description.begin + description.capacity;
  widen_hull(begin(), end());
  frozen_bytes_ = description.used;
  generation_ = description.generation;
  mode_ = description.mode;
  segments_ = SegmentMap(std::move(description.segments));
  past_ = std::move(description.past);
  dropped_frees_ = 0;
  frozen_by_ = 0;
  lost_begin_ = UINTPTR_MAX;
  destroyed_at_ = nullptr;
  was_entered_ = false;
  key_ = new_key();
  abandoned_ = false;
}

ArenaCore::Description ArenaCore::describe() const {
  return {name(), begin(),     end() - begin(), frozen_bytes(),
          mode_,  generation_, past_,           segments_.segments()};
}

// Opens [first, end()) for allocation.  The caller has mapped it.
Expected<void> ArenaCore::start_jemalloc(const ArenaMapping& mapping, std::size_t first) {
  TRY_VOID(memory_.open(mapping, first, huge_pages_, name_.data()));
  top_ = first;
  full_ = false;
  scopes_ = 0;
  if (const int error = create_shard(shards_[0])) {
    memory_.close();
    return system_error(who() + ": jemalloc cannot add an arena", error);
  }
  shard_count_ = 1;
  if (!give_range_to_jemalloc(mapping)) {
    jemalloc::destroy_arena(shards_[0].jemalloc_arena);
    memory_.close();
    return system_error(who() + ": jemalloc's records of it", ENOMEM);
  }
  open_begin_ = mapping.begin + first;
  return {};
}

// Sets how jemalloc gets memory.  It takes a missing hook as one that refuses, so it cannot give
// pages back by itself.  Returns 0 or an errno.
int ArenaCore::create_shard(Shard& shard) {
  shard = Shard{};
  shard.core = this;
  shard.alloc = &provide_extent;
  shard.commit = [](jemalloc::ExtentHooks* hooks, void* extent, std::size_t, std::size_t offset,
                    std::size_t length, unsigned) {
    ArenaCore& core = *static_cast<Shard*>(hooks)->core;
    return core.giving_range_ ||
           !core.memory_.commit(reinterpret_cast<std::uintptr_t>(extent) + offset, length);
  };
  shard.decommit = [](jemalloc::ExtentHooks* hooks, void* extent, std::size_t, std::size_t offset,
                      std::size_t length, unsigned) {
    static_cast<Shard*>(hooks)->core->memory_.decommit(
        reinterpret_cast<std::uintptr_t>(extent) + offset, length);
    return false;
  };
  shard.split = [](auto...) { return false; };
  shard.merge = [](auto...) { return false; };
  return jemalloc::create_arena(&shard, shard.jemalloc_arena);
}

// Closes the open part.  Also frees jemalloc's records of it: with many small objects fork() is
// slow because it copies the page tables of those records, not of the data.
void ArenaCore::stop_jemalloc() {
  while (ThreadCache* cache = caches_) {
    caches_ = cache->next_of_arena;
    jemalloc::destroy_cache(cache->jemalloc_cache);
  }
  for (const Shard& shard : shards()) jemalloc::destroy_arena(shard.jemalloc_arena);
  forget_shards();
  jemalloc::forget_addresses(open_begin(), end());
  memory_.close();
  open_begin_ = end();
}

// Until resume() no thread is inside jemalloc for this arena, except in an ArenaScope.  Returns
// false and changes nothing if membarrier(2) is refused by now, as by a sandbox.
bool ArenaCore::pause() {
  state_.store(ArenaState::paused);
  resource()->close();
  if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0) {
    resume();
    return false;
  }
  for (ThreadCache* cache = caches_; cache != nullptr; cache = cache->next_of_arena) {
    while (cache->busy->load(std::memory_order_acquire)) sched_yield();
    cache->flush();
  }
  return true;
}

void ArenaCore::resume() {
  state_.store(ArenaState::open, std::memory_order_release);
  if (!abandoned()) resource()->open(key(), generation_ == 0 ? key() : 0);
}

tl::unexpected<Error> ArenaCore::not_inherited_error() const {
  return make_error(ErrorCode::not_inherited,
                    who() +
                        " was not frozen when this process was forked; freeze() it before the "
                        "fork");
}

Expected<void> ArenaCore::expect_frozen() const {
  if (state() == ArenaState::not_inherited) return not_inherited_error();
  if (!frozen()) {
    return make_error(ErrorCode::arena_not_frozen,
                      who() + (generation_ == 0 ? " is not frozen; freeze() it first"
                                                : " is thawed; refreeze() it first"));
  }
  if (destroyed_at_ != nullptr) {
    return make_error(ErrorCode::arena_frozen,
                      who() +
                          ": its objects were destroyed, or written to, after the freeze; make "
                          "them by ArenaScope::make(), which nothing destroys");
  }
  return {};
}

Expected<unsigned> ArenaCore::enter_scope() {
  if (state() == ArenaState::not_inherited) return not_inherited_error();
  if (state() != ArenaState::open)
    return make_error(ErrorCode::arena_frozen,
                      who() + " is frozen: no scope can begin; thaw() it first");
  if (full_.exchange(false, std::memory_order_relaxed)) coalesce();
  memory_.forget_shortage();
  ++scopes_;
  was_entered_ = true;
  Shard& shard = choose_shard();
  ++shard.users;
  return shard.jemalloc_arena;
}

void ArenaCore::leave_scope(std::uint64_t key, unsigned jemalloc_arena) {
  if (key != key_ || scopes_ == 0) return;  // it is over, as in a forked child
  --scopes_;
  drop_user(jemalloc_arena);
}

void ArenaCore::close() {
  const ArenaState before = state_.exchange(ArenaState::vacant);
  resource()->close();
  if (before == ArenaState::open || before == ArenaState::paused) stop_jemalloc();
  // Before the range is unmapped: from then on another thread may create an arena there.
  const std::uintptr_t start = begin();
  const std::size_t size = end() - start;
  begin_ = end_ = open_begin_ = 0;
  if (before != ArenaState::not_inherited) unmap_arena(start, size, known_elsewhere_);
  std::exchange(open_file_, {}).close();
  segments_.close_files();
  key_ = 0;
  past_ = {};
  resource_ = nullptr;
}

bool ArenaCore::abandon() {
  abandoned_ = true;
  resource()->close();
  if (!is_needed()) return false;
  if (state() == ArenaState::open && scopes_ == 0) {
    huge_pages_ = false;  // not worth the time any more
    try {
      (void)seal(FreezeMode::lenient, nullptr);
    } catch (const std::bad_alloc&) {  // it stays open
    }
  }
  return true;
}

bool ArenaCore::is_needed() {
  if (!was_entered_) return false;
  if (!frozen()) {
    if (state() != ArenaState::open || scopes_ > 0 || !pause()) return true;  // nothing is known
    const bool empty = past_.live_allocations + count_live().live_blocks <= dropped_frees_;
    resume();
    return !empty;
  }
  return past_.live_allocations > dropped_frees_;
}

void ArenaCore::forget_range() { begin_ = end_ = open_begin_ = 0; }

void ArenaCore::disown_after_fork() {
  std::exchange(open_file_, {}).close();  // it would keep the memory alive
  resource()->close();
  memory_.forget();
  forget_shards();
  caches_ = nullptr;
  scopes_ = 0;
  lost_begin_ = begin() + frozen_bytes();
  if (generation_ == 0) {
    open_begin_ = end();
    state_.store(ArenaState::not_inherited, std::memory_order_release);
    return;
  }
  // The child has what was frozen before the thaw.  The rest of the range stays reserved.
  (void)mmap(reinterpret_cast<void*>(open_begin()), end() - open_begin(), PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  open_begin_ = end();
  state_.store(frozen_state(mode_), std::memory_order_release);
}

void ArenaCore::add_live_blocks(Frozen& to) const {
  const auto counts = count_live();
  to.live_bytes += counts.live_bytes;
  to.live_allocations += counts.live_blocks;
}

ArenaStats ArenaCore::stats() {
  const std::lock_guard lock(mutex_);
  Frozen now = past_;
  if (state() == ArenaState::open) {
    const bool paused = pause();
    add_live_blocks(now);
    if (paused) resume();
    memory_.add_to(now.taken, now.small, now.huge_page_error);
  }
  ArenaStats result;
  result.capacity = end() - begin();
  result.used = state() == ArenaState::not_inherited ? 0 : used();
  result.live_bytes = now.live_bytes;
  result.live_allocations = now.live_allocations;
  result.hole_bytes = now.taken - std::min(now.taken, now.live_bytes);
  for (const Run& hole : now.holes) result.returned_bytes += hole.end - hole.begin;
  result.dropped_frees = dropped_frees_.load(std::memory_order_relaxed);
  result.huge_page_bytes = now.huge_bytes();
  result.small_page_bytes = size_of(now.small);
  result.huge_page_error = now.huge_page_error;
  result.generation = generation_;
  result.frozen = frozen();
  result.mode = mode_;
  return result;
}

}  // namespace cowshed::internal
