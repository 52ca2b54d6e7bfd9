#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/malloc_route.h>

// What allocate() and deallocate() do if the fast path of arena/resource.h does not serve them; and
// how jemalloc gets an arena's range.
namespace cowshed::internal {
namespace {

// Of jemalloc: a larger block has an extent of its own.
constexpr std::size_t kMostInSlab = arch::kLargestPage / 2 * 7;

}  // namespace

// jemalloc's request for more addresses.  The first shard gets the range in
// give_range_to_jemalloc().
void* ArenaCore::provide_extent(jemalloc::ExtentHooks* hooks, void*, std::size_t size,
                                std::size_t alignment, bool* zero, bool* commit, unsigned) {
  const auto& shard = *static_cast<Shard*>(hooks);
  ArenaCore& core = *shard.core;
  const bool needs_memory = std::exchange(*commit, false);  // else commit() follows
  *zero = true;                                             // ArenaMemory sees to it
  if (core.giving_range_) {
    if (size != core.offered_) return nullptr;
    core.offered_ = 0;
    void* piece = reinterpret_cast<void*>(core.memory_.begin() + core.top_);
    core.top_ += size;
    return piece;
  }
  for (const Shard& from : core.shards()) {
    if (&from == hooks) continue;
    bool was_used = false;
    void* piece = jemalloc::take_free_range(from.jemalloc_arena, size, alignment, was_used);
    if (piece == nullptr) continue;
    const auto begin = reinterpret_cast<std::uintptr_t>(piece);
    if (was_used) core.memory_.decommit(begin, size);
    if (needs_memory && !core.memory_.commit(begin, size)) {
      jemalloc::add_free_range(shard.jemalloc_arena, piece, size);
      return nullptr;
    }
    *commit = needs_memory;
    return piece;
  }
  core.full_.store(true, std::memory_order_relaxed);
  return nullptr;
}

// Gives jemalloc the whole range, without memory.  Each request makes it take a piece, as large as
// size classes allow, and then fails because commit() refuses.
bool ArenaCore::give_range_to_jemalloc(const ArenaMapping& mapping) {
  const int flags = jemalloc::arena_flags(shards_[0].jemalloc_arena) | jemalloc::kNoCacheFlags;
  giving_range_ = true;
  bool known = true;
  while (known && top_ < mapping.size) {
    offered_ = jemalloc::size_class_below(mapping.size - top_);
    cowshed_je_mallocx(offered_, flags);
    known = jemalloc::has_extent(reinterpret_cast<void*>(mapping.begin + top_ - kPage));
  }
  giving_range_ = full_ = false;
  offered_ = 0;
  return known;
}

ArenaResource* resource_of_no_arena() noexcept {
  // Not a function's static: its lock would stay locked in a child forked while a thread makes the
  // resource.  If two threads make one at once, one of them stays unused.
  static constinit std::atomic<ArenaResource*> known = nullptr;
  ArenaResource* resource = known.load(std::memory_order_acquire);
  if (resource != nullptr) return resource;
  auto* made = new (jemalloc::allocate_record(sizeof(ArenaResource))) ArenaResource(nullptr);
  return known.compare_exchange_strong(resource, made) ? made : resource;
}

void* ArenaResource::allocate_in_jemalloc(std::size_t size, std::size_t alignment) {
  {
    const Busy busy;
    if (last_arena.key == allocate_key_.load(std::memory_order_acquire)) [[likely]] {
      const int flags = last_arena.flags | alignment_flags(alignment);
      if (void* block = cowshed_je_mallocx(jemalloc_size(size, alignment), flags)) [[likely]]
        return block;
    }
  }
  return allocate_slowly(size, alignment);
}

void ArenaResource::deallocate_in_jemalloc(void* block, std::size_t size,
                                           std::size_t alignment) noexcept {
  {
    const Busy busy;
    if (last_arena.key == deallocate_key_.load(std::memory_order_acquire)) [[likely]] {
      cowshed_je_sdallocx(block, jemalloc_size(size, alignment),
                          last_arena.flags | alignment_flags(alignment));
      return;
    }
  }
  deallocate_slowly(block);
}

void* ArenaResource::allocate_slowly(std::size_t size, std::size_t alignment) {
  if (core_ == nullptr) {
    throw ArenaBadAlloc({ErrorCode::invalid_argument, 0,
                         "this Arena was moved from: allocate from the one that it was moved to"});
  }
  return core_->allocate_slowly(*this, size, alignment);
}

void* ArenaCore::allocate_slowly(const ArenaResource& resource, std::size_t size,
                                 std::size_t alignment) {
  const bool known = last_arena.key == key();
  if (&resource == this->resource() && !abandoned() && !known && find_thread_cache())
    return this->resource()->allocate(size, alignment);
  const std::lock_guard lock(mutex_);  // waits while the arena is paused
  if (&resource != this->resource() || abandoned()) {
    throw ArenaBadAlloc({ErrorCode::invalid_argument, 0,
                         "an arena was destroyed before its resource() or UseArena, from which " +
                             std::to_string(size) + " bytes were asked; keep the arena longer"});
  }
  if (state() == ArenaState::open) {
    full_ = false;  // throw_refusal() reports what fails now, not what failed before
    memory_.forget_shortage();
    for (const bool again : {false, true}) {
      if (again) coalesce();
      // Another shard may have free blocks of this size.
      for (Shard& shard : shards()) {
        const int flags = jemalloc::arena_flags(shard.jemalloc_arena) | jemalloc::kNoCacheFlags |
                          alignment_flags(alignment);
        void* block = cowshed_je_mallocx(jemalloc_size(size, alignment), flags);
        if (block == nullptr) continue;
        if (size <= kMostInSlab) move_thread_to(shard);
        return block;
      }
    }
  }
  throw_refusal(size, alignment);  // under the lock, because another thread may thaw the arena
}

// This thread's next blocks are likely to be there, too.
void ArenaCore::move_thread_to(Shard& shard) {
  ThreadCache* cache = cache_of_thread();
  if (cache == nullptr || cache->jemalloc_arena == shard.jemalloc_arena) return;
  drop_user(cache->jemalloc_arena);
  ++shard.users;
  cache->jemalloc_arena = shard.jemalloc_arena;
  cache->flags =
      jemalloc::arena_flags(shard.jemalloc_arena) | jemalloc::cache_flags(cache->jemalloc_cache);
  cache->use();
}

// Joins free blocks of all shards, also those in the caches of threads, so that they serve other
// sizes.
void ArenaCore::coalesce() {
  const bool paused = pause();
  purge();
  for (const Shard& shard : shards().subspan(1))
    jemalloc::give_free_ranges(shard.jemalloc_arena, shards_[0].jemalloc_arena);
  if (paused) resume();
}

void ArenaCore::purge() {
  for (const Shard& shard : shards()) jemalloc::purge_arena(shard.jemalloc_arena);
}

void ArenaResource::deallocate_slowly(void* block) noexcept {
  // Else there is no arena any more.
  if (core_ != nullptr && core_->resource() == this && core_->contains(block))
    core_->deallocate_unsized(block);
}

// Calls open(flags of jemalloc) if the block is in the open part, else frozen().  The arena cannot
// be frozen during the call.
template <class WhenOpen, class WhenFrozen>
void ArenaCore::visit_block(const void* block, WhenOpen open, WhenFrozen frozen) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(block);
  const bool known = last_arena.key == key();
  if (address >= open_begin() && (known || find_thread_cache())) {
    const Busy busy;
    // Checks again, because the block may have been frozen before this thread was busy.
    if (resource()->allows(last_arena.key) && address >= open_begin()) {
      open(last_arena.flags);
      return;
    }
  }
  const std::lock_guard lock(mutex_);  // waits while the arena is paused
  if (state() == ArenaState::open && address >= open_begin()) open(jemalloc::kNoCacheFlags);
  else frozen();
}

void ArenaCore::deallocate_unsized(void* block) noexcept {
  visit_block(
      block, [&](int flags) { cowshed_je_dallocx(block, flags); },
      [&] { dropped_frees_.fetch_add(1, std::memory_order_relaxed); });
}

BlockInArena ArenaCore::look_up(const void* block) noexcept {
  BlockInArena result;
  visit_block(
      block,
      [&](int) { result.readable = cowshed_je_malloc_usable_size(const_cast<void*>(block)); },
      [&] {
        const std::uintptr_t end = begin() + frozen_bytes();
        result.readable = end - std::min(end, reinterpret_cast<std::uintptr_t>(block));
        result.frozen = true;
      });
  return result;
}

std::optional<Error> ArenaCore::refusal_in_scope() const {
  if (const int shortage = memory_.shortage()) return no_memory_error("malloc()", shortage);
  if (full_.load(std::memory_order_relaxed)) return full_error("malloc() in an ArenaScope");
  return std::nullopt;
}

Error ArenaCore::no_memory_error(const std::string& request, int shortage) const {
  if (shortage == EBADF) return system_error(descriptor_was_closed(who()), EBADF).value();
  if (shortage > 0 && shortage != ENOSPC && shortage != ENOMEM)
    return system_error(who() + ": fallocate(2) for " + request, shortage).value();
  const bool limited = shortage == ArenaMemory::kLimited;
  return {ErrorCode::out_of_memory, limited ? 0 : ENOMEM,
          who() + ": " + (limited ? "the memory cgroup, or the machine," : "the kernel") +
              " has no memory for " + request + "; raise the limit, or free memory"};
}

Error ArenaCore::full_error(const std::string& request) const {
  return {ErrorCode::capacity_exceeded, 0,
          who() + ": capacity of " + std::to_string(end() - begin()) + " bytes exceeded by " +
              request + "; create it with a larger .capacity"};
}

void ArenaCore::throw_refusal(std::size_t size, std::size_t alignment) const {
  const OutsideScope outside;  // the exception must not need memory of an arena that is full
  switch (state()) {
    case ArenaState::not_inherited: throw ArenaBadAlloc(not_inherited_error().value());
    case ArenaState::open: break;
    default:
      throw ArenaBadAlloc({ErrorCode::arena_frozen, 0,
                           who() +
                               " is frozen: nothing can be allocated from it any more; thaw() it, "
                               "or allocate before freeze()"});
  }
  const std::string request = "a request for " + std::to_string(size) + " bytes";
  const int shortage = memory_.shortage();
  const std::size_t needed = jemalloc::size_class_above(jemalloc_size(size, alignment));
  // If the request fits into what was never used, it is jemalloc's records that lack memory.
  const std::size_t untouched = end() - std::max(open_begin(), begin() + memory_.used());
  if (shortage != 0 || (needed <= end() - begin() && (needed + alignment <= untouched ||
                                                      !full_.load(std::memory_order_relaxed)))) {
    throw ArenaBadAlloc(no_memory_error(request, shortage));
  }
  throw ArenaBadAlloc(
      full_error(request + (needed == size ? "" : ", which takes " + std::to_string(needed)) +
                 " in one piece, with " +
                 std::to_string(past_.live_bytes + count_live().live_bytes) + " bytes allocated"));
}

}  // namespace cowshed::internal
