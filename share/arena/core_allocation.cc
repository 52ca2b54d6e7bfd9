#include <algorithm>
#include <cerrno>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/malloc_route.h>
#include <cowshed/share/arena/table.h>

// Where allocate() and deallocate() end up when arena/resource.h's way is closed, and what jemalloc
// asks for.
namespace cowshed {
// What jemalloc asks for when it has too little: the next piece of the range while the arena is
// opened, then never again.
void* ArenaCore::extend(jemalloc::ExtentHooks* hooks, void*, std::size_t size, std::size_t,
                        bool* zero, bool* commit, unsigned) {
  ArenaCore& core = *static_cast<Hooks*>(hooks)->core;
  if (size != core.offered_) {
    core.full_.store(true, std::memory_order_relaxed);
    return nullptr;
  }
  void* piece = reinterpret_cast<void*>(core.memory_.begin() + core.top_);
  core.top_ += size;
  core.offered_ = 0;
  *zero = true;  // never used before, and a memfd reads as zeros
  *commit = false;
  return piece;
}

// Gives jemalloc all of the range, without memory behind it, by requests that fail only once they
// have made it take a piece.  At once and in pieces as large as its size classes allow, because
// what came in two pieces it never puts together: blocks that were freed would not make a larger
// one.
bool ArenaCore::hand_over(const ArenaMapping& mapping) {
  const int flags = jemalloc::arena_flags(jemalloc_arena_) | jemalloc::kNoCacheFlags;
  handing_over_ = true;
  bool known = true;
  while (known && top_ < mapping.size) {
    const auto piece = mapping.begin + top_;
    offered_ = jemalloc::size_class_below(mapping.size - top_);
    cowshed_je_mallocx(offered_, flags);
    known = jemalloc::has_extent(reinterpret_cast<void*>(piece));
  }
  handing_over_ = full_ = false;
  offered_ = 0;
  return known;
}

internal::ArenaFront* internal::front_of_no_arena() noexcept {
  static auto* const front =
      new (jemalloc::allocate_record(sizeof(ArenaFront))) ArenaFront(nullptr);
  return front;
}

void* internal::ArenaFront::take_from_jemalloc(std::size_t size, std::size_t alignment) {
  {
    const Busy busy;
    if (last_arena.key == take_key_.load(std::memory_order_acquire)) [[likely]] {
      const int flags = last_arena.flags | alignment_flags(alignment);
      if (void* block = cowshed_je_mallocx(jemalloc_size(size, alignment), flags)) [[likely]]
        return block;
    }
  }
  return take_slowly(size, alignment);
}

void internal::ArenaFront::give_to_jemalloc(void* block, std::size_t size,
                                            std::size_t alignment) noexcept {
  {
    const Busy busy;
    if (last_arena.key == give_key_.load(std::memory_order_acquire)) [[likely]] {
      cowshed_je_sdallocx(block, jemalloc_size(size, alignment),
                          last_arena.flags | alignment_flags(alignment));
      return;
    }
  }
  give_slowly(block);
}

void* internal::ArenaFront::take_slowly(std::size_t size, std::size_t alignment) {
  if (core_ == nullptr) {
    throw ArenaBadAlloc({ErrorCode::invalid_argument, 0,
                         "this Arena was moved from: allocate from the one that it was moved to"});
  }
  return core_->take_slowly(*this, size, alignment);
}

void* ArenaCore::take_slowly(const internal::ArenaFront& front, std::size_t size,
                             std::size_t alignment) {
  const bool known = internal::last_arena.key == key();
  if (&front == this->front() && !abandoned() && !known && find_thread_cache())
    return this->front()->take(size, alignment);
  return take_uncached(front, size, alignment);
}

void* ArenaCore::take_uncached(const internal::ArenaFront& front, std::size_t size,
                               std::size_t alignment) {
  const std::lock_guard lock(mutex_);  // whoever paused the arena has ended
  if (&front != this->front() || abandoned()) {
    throw ArenaBadAlloc({ErrorCode::invalid_argument, 0,
                         "an arena was destroyed before its resource() or UseArena, from which " +
                             std::to_string(size) + " bytes were asked; keep the arena longer"});
  }
  if (state() == ArenaState::open) {
    full_ = false;  // why it fails now is asked, not why it once failed
    memory_.forget_shortage();
    const int flags = jemalloc::arena_flags(jemalloc_arena_) | jemalloc::kNoCacheFlags |
                      internal::alignment_flags(alignment);
    for (const bool again : {false, true}) {
      if (again) put_together();
      if (void* block = cowshed_je_mallocx(internal::jemalloc_size(size, alignment), flags))
        return block;
    }
  }
  refuse(size, alignment);  // while it is so: another thread may thaw the arena
}

// What was freed, also what is in threads' caches, so that it serves other sizes.
void ArenaCore::put_together() {
  const bool paused = pause();
  jemalloc::purge_arena(jemalloc_arena_);
  if (paused) resume();
}

void internal::ArenaFront::give_slowly(void* block) noexcept {
  if (core_ != nullptr) core_->give_slowly(*this, block);
}

void ArenaCore::give_slowly(const internal::ArenaFront& front, void* block) noexcept {
  if (&front == this->front() && contains(block))  // else it went with its arena
    give_unsized(block);
}

// Calls one of the two: `open` with jemalloc's flags if the block is in the open part.  The arena
// cannot be frozen meanwhile.
template <class WhenOpen, class WhenFrozen>
void ArenaCore::visit_block(const void* block, WhenOpen open, WhenFrozen frozen) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(block);
  const bool known = internal::last_arena.key == key();
  if (address >= open_begin() && (known || find_thread_cache())) {
    const internal::Busy busy;
    // Where the open part begins is asked again: the block may have been frozen before we were
    // busy.
    if (front()->takes(internal::last_arena.key) && address >= open_begin()) {
      open(internal::last_arena.flags);
      return;
    }
  }
  const std::lock_guard lock(mutex_);  // whoever paused the arena has ended
  if (state() == ArenaState::open && address >= open_begin())
    open(jemalloc::arena_flags(jemalloc_arena_) | jemalloc::kNoCacheFlags);
  else frozen();
}

void ArenaCore::give_unsized(void* block) noexcept {
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

void ArenaCore::refuse(std::size_t size, std::size_t alignment) const {
  const OutsideScope outside;  // what is thrown must not need room in the arena that has none
  switch (state()) {
    case ArenaState::not_inherited: throw ArenaBadAlloc(not_inherited_error().value());
    case ArenaState::open: break;
    default:
      throw ArenaBadAlloc({ErrorCode::arena_frozen, 0,
                           who() +
                               " is frozen: nothing can be allocated from it any more; thaw() it, "
                               "or allocate before freeze()"});
  }
  const std::size_t needed = jemalloc::size_class_above(internal::jemalloc_size(size, alignment));
  const std::size_t capacity = end() - begin();
  const std::size_t first = open_begin() - begin();
  // Above all that was ever used there is room: so it is the allocator's records that have none.
  const std::size_t untouched =
      first + jemalloc::size_class_below(capacity - first) - std::max(first, memory_.used());
  const auto shortage = memory_.shortage();
  if (shortage != ArenaMemory::Shortage::none ||
      (needed <= capacity &&
       (needed + alignment <= untouched || !full_.load(std::memory_order_relaxed)))) {
    const bool limited = shortage == ArenaMemory::Shortage::cgroup;
    throw ArenaBadAlloc({ErrorCode::out_of_memory, limited ? 0 : ENOMEM,
                         who() + ": " +
                             (limited ? "the memory cgroup, or the machine," : "the kernel") +
                             " has no memory for a request for " + std::to_string(size) +
                             " bytes; raise the limit, or free memory"});
  }
  throw ArenaBadAlloc({ErrorCode::capacity_exceeded, 0,
                       who() + ": capacity of " + std::to_string(capacity) +
                           " bytes exceeded by a request for " + std::to_string(size) +
                           (needed == size ? "" : ", which takes " + std::to_string(needed)) +
                           " in one piece, with " +
                           std::to_string(jemalloc::count_arena(jemalloc_arena_).live_bytes) +
                           " bytes allocated; create it with a larger .capacity"});
}

}  // namespace cowshed
