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

#include <cowshed/base/try.h>
#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/malloc_route.h>
#include <cowshed/share/arena/mapping.h>

namespace cowshed {
namespace {

std::atomic<std::uint64_t> next_key = 1;

int membarrier(int command) { return static_cast<int>(syscall(SYS_membarrier, command, 0, 0)); }

}  // namespace

std::uint64_t ArenaCore::new_key() { return next_key.fetch_add(1); }

tl::unexpected<Error> ArenaCore::no_membarrier(const std::string& name) {
  return make_error(ErrorCode::unsupported,
                    "arena '" + name + "': this kernel or sandbox has no membarrier(2)");
}

Expected<void> ArenaCore::register_membarrier(const std::string& name) {
  if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0) return no_membarrier(name);
  return {};
}

Expected<void> ArenaCore::open(const ArenaOptions& options) {
  TRY_VOID(register_membarrier(options.name));
  TRY(const ArenaMapping mapping, map_new_arena(options));
  std::fill(name_.begin(), name_.end(), '\0');
  std::copy(options.name.begin(), options.name.end(), name_.begin());
  huge_pages_ = options.huge_pages;
  auto started = start_jemalloc(mapping, 0);
  if (!started) {
    unmap_arena(mapping.begin, mapping.size);
    ::close(mapping.fd);
    return started;
  }
  open_fd_ = mapping.fd;
  segments_ = {};
  known_elsewhere_ = false;
  begin_ = mapping.begin;
  end_ = mapping.begin + mapping.size;
  widen_hull(begin(), end());
  frozen_bytes_ = 0;
  generation_ = 0;
  was_entered_ = false;
  mode_ = FreezeMode::strict;
  dropped_frees_ = 0;
  past_ = {};
  key_ = new_key();
  abandoned_ = false;
  resume();
  return {};
}

void ArenaCore::adopt(Description description) {
  std::fill(name_.begin(), name_.end(), '\0');
  std::copy(description.name.begin(), description.name.end(), name_.begin());
  huge_pages_ = true;
  was_entered_ = false;
  open_fd_ = -1;
  segments_ = SegmentMap(std::move(description.segments));
  known_elsewhere_ = true;
  begin_ = description.begin;
  end_ = open_begin_ = description.begin + description.capacity;
  widen_hull(begin(), end());
  frozen_bytes_ = description.used;
  generation_ = description.generation;
  mode_ = description.mode;
  dropped_frees_ = 0;
  past_ = std::move(description.past);
  key_ = new_key();
  abandoned_ = false;
  state_.store(frozen_state(mode_), std::memory_order_release);
}

ArenaCore::Description ArenaCore::describe() const {
  return {name(), begin(),     end() - begin(), frozen_bytes(),
          mode_,  generation_, past_,           segments_.segments()};
}

Expected<void> ArenaCore::start_jemalloc(const ArenaMapping& mapping, std::size_t first) {
  auto opened = memory_.open(mapping, first, huge_pages_, name_.data());
  if (!opened) return opened;
  // What is left out jemalloc takes as "cannot": no page is given back behind the arena's back.
  hooks_ = Hooks{};
  hooks_.alloc = &extend;
  hooks_.commit = [](jemalloc::ExtentHooks* hooks, void* extent, std::size_t, std::size_t offset,
                     std::size_t length, unsigned) {
    ArenaCore& core = *static_cast<Hooks*>(hooks)->core;
    return core.handing_over_ ||
           !core.memory_.commit(reinterpret_cast<std::uintptr_t>(extent) + offset, length);
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
  if (!hand_over(mapping)) {
    jemalloc::destroy_arena(jemalloc_arena_);
    memory_.close();
    return system_error(who() + ": jemalloc's records of it", ENOMEM);
  }
  open_begin_ = mapping.begin + first;
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

tl::unexpected<Error> ArenaCore::not_inherited_error() const {
  return make_error(ErrorCode::not_inherited,
                    who() +
                        " was not frozen when this process was forked; freeze() it before the "
                        "fork");
}

Expected<unsigned> ArenaCore::enter_scope() {
  if (state() == ArenaState::not_inherited) return not_inherited_error();
  if (state() != ArenaState::open)
    return make_error(ErrorCode::arena_frozen, who() + " is frozen: no scope can begin");
  if (full_.exchange(false, std::memory_order_relaxed)) put_together();
  ++scopes_;
  was_entered_ = true;
  return jemalloc_arena_;
}

void ArenaCore::leave_scope(std::uint64_t key) {
  if (key == key_) --scopes_;
}

// From here to resume() no thread is inside jemalloc for this arena, but for ArenaScopes.  False,
// and nothing was changed: membarrier(2) is refused by now.
bool ArenaCore::pause() {
  state_.store(ArenaState::paused);
  front()->close();
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
  if (!abandoned()) front()->open(key(), generation_ == 0 ? key() : 0);
}

Expected<void> ArenaCore::expect_frozen() const {
  if (state() == ArenaState::not_inherited) return not_inherited_error();
  if (!frozen()) {
    return make_error(ErrorCode::arena_not_frozen,
                      who() + (generation_ == 0 ? " is not frozen; freeze() it first"
                                                : " is thawed; refreeze() it first"));
  }
  return {};
}

void ArenaCore::close() {
  const ArenaState before = state_.exchange(ArenaState::vacant);
  front()->close();
  if (before == ArenaState::open || before == ArenaState::paused) stop_jemalloc();
  // First, for from the unmapping on another thread may have an arena there.
  const std::uintptr_t start = begin();
  const std::size_t size = end() - start;
  begin_ = end_ = open_begin_ = 0;
  if (before != ArenaState::not_inherited) unmap_arena(start, size, known_elsewhere_);
  if (open_fd_ >= 0) ::close(std::exchange(open_fd_, -1));
  for (const int fd : std::exchange(segments_, {}).files()) ::close(fd);
  key_ = 0;
  past_ = {};
  front_ = nullptr;
}

bool ArenaCore::prepare() {
  if (front() == nullptr) {
    void* record = jemalloc::allocate_record(sizeof(internal::ArenaFront));
    front_ = record == nullptr ? nullptr : new (record) internal::ArenaFront(this);
  }
  return front() != nullptr;
}

bool ArenaCore::abandon() {
  abandoned_ = true;
  front()->close();
  if (!is_needed()) return false;
  if (state() == ArenaState::open && scopes_ == 0) {
    huge_pages_ = false;  // not worth the time any more
    (void)seal(FreezeMode::lenient, nullptr);
  }
  return true;
}

bool ArenaCore::is_needed() {
  if (!was_entered_) return false;
  if (!frozen()) {
    // Of one that was not inherited nothing can be known.
    if (state() != ArenaState::open || scopes_ > 0 || !pause()) return true;
    const bool empty =
        past_.live_allocations + jemalloc::count_arena(jemalloc_arena_).live_blocks <=
        dropped_frees_;
    resume();
    return !empty;
  }
  return past_.live_allocations > dropped_frees_;
}

void ArenaCore::forget_range() { begin_ = end_ = open_begin_ = 0; }

void ArenaCore::disown_after_fork() {
  ::close(std::exchange(open_fd_, -1));  // else the child would keep the memory alive
  front()->close();
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
    const bool paused = pause();
    const auto counts = jemalloc::count_arena(jemalloc_arena_);
    if (paused) resume();
    now.live_bytes += counts.live_bytes;
    now.live_allocations += counts.live_blocks;
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

}  // namespace cowshed
