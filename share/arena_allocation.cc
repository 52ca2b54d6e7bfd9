#include <mutex>
#include <new>
#include <string>
#include <utility>

#include <cowshed/share/arena_core.h>
#include <cowshed/share/arena_table.h>

// Where allocate() and deallocate() end up when arena_front.h's way is closed, and what jemalloc
// asks for.
namespace cowshed {

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

}  // namespace cowshed
