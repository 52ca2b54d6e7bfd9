#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <memory_resource>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/share/arena/options.h>
#include <cowshed/share/arena/resource.h>

// Memory for one set of objects, which a process fills, freezes, and then shares with every process
// that it forks: same addresses, no copies.
//
//   auto arena = cowshed::Arena::create({.name = "index", .capacity = 64_GiB});
//   auto index = arena->make<Index>(...);   // std::pmr members of Index use the arena too
//   arena->freeze();                        // immutable from here, in huge pages
//   cowshed::start({.count = 8}, ...);      // workers.h
namespace cowshed {

class ArenaCore;

namespace internal {
tl::unexpected<Error> refusal_of(const ArenaBadAlloc& failure);
}

// A handle that owns the arena; moving it moves no object.  Destroying it unmaps the arena in this
// process only and makes its published references `released`; it runs no destructor of an object.
// What stays is 2 MiB of address space for each arena ever created: jemalloc keeps its records; and
// 64 bytes, by which a resource() that outlived its arena is known.  An arena in which there was an
// ArenaScope stays while there are blocks in it, since libraries may keep objects of their own
// there, whose destructors run after main(): if it was not frozen, it is now, leniently, so that
// forked children have it.  Once they were all freed the next create() gives it back.
//
// One that was moved from can be destroyed and assigned to; the calls that can fail answer
// invalid_argument, the others with nothing.  An assignment destroys the arena that the handle had,
// at once.
//
// Fork: an arena that is not yet frozen is not inherited (MADV_DONTFORK), since a child's stores
// would show in the parent.  There every call answers not_inherited and the parent is unaffected.
// What forks without pthread_atfork(3)'s handlers, as _Fork(3) and clone(2), cannot say so: in that
// child calls of an open arena are SIGSEGV, or wait for ever; frozen ones may be read.
class Arena {
 public:
  // A memfd named "cowshed:NAME", mapped at a fixed address, so that pointers into the arena mean
  // the same in every process that maps it.  Chosen addresses start at 0x200040000000, one arena
  // after the other (0x7e8000000000 where the first is refused: ThreadSanitizer); neither ASLR nor
  // other sanitizers use them.  `capacity` may exceed the machine's memory; RLIMIT_AS sees it.
  // Errors: invalid_argument, address_taken (naming what is there), system_call, unsupported (no
  // membarrier(2)).  Thread-safe.
  static Expected<Arena> create(const ArenaOptions& options);

  Arena(Arena&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)),
        front_(std::exchange(other.front_, internal::front_of_no_arena())) {}
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  // `size` bytes at a multiple of `alignment`, a power of two.  Any number of threads may allocate
  // at once.  A block takes its size rounded up: to four classes for each power of two, so that one
  // of the whole capacity fits if that is one of them (4, 5, 6, 7, 8, 10, 12 ... GiB).  Throws
  // ArenaBadAlloc: the arena is full, or frozen; the memory cgroup or the
  // kernel has no more memory (the memory is really there when this returns: no SIGBUS later.  But
  // what the process takes elsewhere up to memory.max, the kernel answers by killing).  The memory
  // of a block that was deallocated before is used again, not zeroed.
  void* allocate(std::size_t size, std::size_t alignment = alignof(std::max_align_t)) {
    return front_->take(size, alignment);
  }

  // `size` and `alignment` as allocated.  After the freeze a counted no-op, in children too, so
  // that no frozen block is ever handed out again.  Thread-safe.
  void deallocate(void* block, std::size_t size,
                  std::size_t alignment = alignof(std::max_align_t)) noexcept {
    front_->give(block, size, alignment);
  }

  // The same two for std::pmr containers; valid until the arena is destroyed, an error after that.
  std::pmr::memory_resource* resource() const noexcept { return front_; }

  // Constructs a T in the arena, giving the arena's allocator to T and its members where they take
  // one.  The arena owns the memory; nobody runs ~T unless the caller does, before the freeze.
  // Errors: those of ArenaBadAlloc.  Exceptions of T's constructor pass through.  Thread-safe.
  template <class T, class... Args>
  Expected<T*> make(Args&&... args);

  // `count` value-initialised Ts side by side, by the same rules; capacity_exceeded for more bytes
  // than there are addresses.
  template <class T>
  Expected<std::span<T>> make_array(std::size_t count);

  // Makes the arena immutable: gives back 2 MiB ranges whose blocks were all deallocated, puts what
  // has 4 KiB pages into huge ones (see ArenaStats::small_page_bytes), maps it privately over
  // itself and seals the memfd.  Other threads may read meanwhile, but not write; if they allocate,
  // they wait and then meet a frozen arena.  Freezing again in the same mode does nothing; in
  // another it is the error arena_frozen.  When the kernel refuses because
  // somebody else maps the arena for writing (system_call, EBUSY)
  // the arena is as before. When it refuses even to map that again, nothing can be allocated
  // (arena_frozen), and nothing may be written, until freeze() succeeds. Errors: not_inherited,
  // in_use (a thread is inside an ArenaScope of it), system_call, unsupported (membarrier(2) is
  // refused by now, as by a sandbox).
  Expected<void> freeze(const FreezeOptions& options = {});
  Expected<void> freeze(FreezeMode mode) { return freeze(FreezeOptions{.mode = mode}); }

  // Opens a frozen arena again, in this process: allocations go to the unused rest of it, and are
  // not inherited by fork().  What was frozen stays as it is: immutable, or with private writes
  // when lenient.  A process forked meanwhile has the last generation.  refreeze() ends it.
  // Errors: arena_not_frozen, capacity_exceeded (nothing is unused), system_call, unsupported (no
  // membarrier(2)).
  Expected<void> thaw();

  // Makes the next generation, frozen and sealed like the first: what this process allocated since
  // thaw(), and what it wrote privately in a lenient arena, thawed or not.  Its private pages
  // become shared ones again, so that its later forks are cheap and share them; processes that have
  // an older generation keep it.  The cost is that of copying the 2 MiB ranges that were written
  // to, and of smaller generations before, so that there are some log2(bytes / 2 MiB) of them at
  // most; those wait when memory is short.  Each takes 2 MiB at least.  Other threads must not
  // write meanwhile.  Errors: those of freeze() and of thaw().
  Expected<void> refreeze(const Progress& progress = nullptr);

  // Puts what has 4 KiB pages into 2 MiB pages, before or after the freeze; for what was deferred
  // or missed.  0.3 to 2 s per GiB.  Returns the bytes in huge pages.  After the freeze for this
  // and later processes.  Errors: not_inherited, unsupported as with freeze().
  Expected<std::size_t> collapse(const Progress& progress = nullptr);

  // Maps all of a frozen arena into this process now: afterwards reading raises no page faults.
  // For children, which start with nothing mapped.  Errors: arena_not_frozen, not_inherited,
  // system_call.
  Expected<void> prefault() const;

  // The audit: bytes of the frozen arena of which this process has a private copy; 0 is what the
  // freeze is for.  Needs no privilege; cheap, for the kernel looks at 2 MiB pages (Linux 6.7; at
  // 4 KiB pages before).  Errors: arena_not_frozen, not_inherited, system_call.
  Expected<std::size_t> private_bytes() const;

  // True for an address in the arena's range; two compares.  Thread-safe.
  bool contains(const void* address) const noexcept;

  // A snapshot, exact but for blocks in the cache of a thread inside an ArenaScope, which count as
  // live.  Stops allocations for a moment.  Thread-safe.
  ArenaStats stats() const;

  std::string_view name() const noexcept;
  std::byte* base() const noexcept;  // 2 MiB aligned

 private:
  friend class ArenaAccess;
  friend class ArenaScope;
  friend class UseArena;
  explicit Arena(ArenaCore& core) noexcept;

  template <class Function>
  auto work(Function function) const -> decltype(function());
  template <class Function>
  Expected<void> change(Function function);
  tl::unexpected<Error> too_many(std::size_t count, std::size_t size) const;

  ArenaCore* core_;              // null when moved from
  internal::ArenaFront* front_;  // its own, or one of no arena
};

template <class T, class... Args>
Expected<T*> Arena::make(Args&&... args) {
  std::pmr::polymorphic_allocator<> allocator(resource());
  try {
    void* memory = allocator.allocate_bytes(sizeof(T), alignof(T));
    try {
      return std::uninitialized_construct_using_allocator(static_cast<T*>(memory), allocator,
                                                          std::forward<Args>(args)...);
    } catch (...) {
      allocator.deallocate_bytes(memory, sizeof(T), alignof(T));
      throw;
    }
  } catch (const ArenaBadAlloc& failure) {
    return internal::refusal_of(failure);
  }
}

template <class T>
Expected<std::span<T>> Arena::make_array(std::size_t count) {
  if (count > static_cast<std::size_t>(-1) / sizeof(T)) return too_many(count, sizeof(T));
  std::pmr::polymorphic_allocator<T> allocator(resource());
  try {
    T* first = allocator.allocate(count);
    std::size_t made = 0;
    try {
      for (; made < count; ++made)
        std::uninitialized_construct_using_allocator(first + made, allocator);
      return std::span<T>(first, count);
    } catch (...) {
      std::destroy_n(first, made);
      allocator.deallocate(first, count);
      throw;
    }
  } catch (const ArenaBadAlloc& failure) {
    return internal::refusal_of(failure);
  }
}

}  // namespace cowshed
