#pragma once

#include <cstddef>
#include <memory>
#include <memory_resource>
#include <span>
#include <string_view>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/share/arena/options.h>
#include <cowshed/share/arena/resource.h>

// Memory for a set of objects.  A process fills it, freezes it, and then shares it with all
// processes that it forks, at the same addresses and without copies.
//
//   auto arena = cowshed::Arena::create({.name = "index", .capacity = 64_GiB}).value();
//   Index* index = arena.make<Index>(...).value();  // members too, if Index has allocator_type
//   arena.freeze().value();                         // immutable from here, in huge pages
//   cowshed::start({.count = 8}, ...);              // workers.h
namespace cowshed {

namespace internal {
class ArenaAccess;
class ArenaCore;

tl::unexpected<Error> refusal_of(const ArenaBadAlloc& failure);

template <class T>
inline constexpr bool kStandardAllocator = false;
template <class T>
inline constexpr bool kStandardAllocator<std::allocator<T>> = true;
template <class T>
constexpr bool holds_heap_memory() {
  if constexpr (requires { typename T::allocator_type; })
    return kStandardAllocator<typename T::allocator_type>;
  else return false;
}
}  // namespace internal

// Whether Arena::make<T>() is refused by the compiler, because T is a container that allocates its
// elements by std::allocator, outside the arena.  If that is meant, write before its first use:
//
//   template <>
//   inline constexpr bool cowshed::elements_outside<Names> = false;
template <class T>
inline constexpr bool elements_outside = internal::holds_heap_memory<T>();

// A handle that owns an arena.  Moving the handle moves no object.
//
// The destructor unmaps the arena in this process only, and makes its published references
// `released`.  It runs no destructor of an object.  For each arena ever created, a process keeps
// 64 bytes for a resource() that outlives its arena.  An arena stays after its handle while it has
// blocks that were allocated in an ArenaScope: a library may keep objects there, whose destructors
// run after main().  If such an arena was not frozen, it is frozen leniently then, so that forked
// children have it.  After the last block is freed, the next create() unmaps the arena; discard()
// does so at once.
//
// After a move only the destructor and assignment are useful: calls that can fail return
// invalid_argument, and others return nothing.  An assignment destroys the handle's arena at once.
//
// Fork: a child does not inherit an arena that is not frozen yet (MADV_DONTFORK), because the child
// would write into the parent's memory.  In the child every call returns not_inherited.  A child of
// _Fork(3) or clone(2), which run no pthread_atfork(3) handlers, may only read frozen arenas; calls
// of an open arena crash or hang there.
class Arena {
 public:
  // Maps a memfd named "cowshed:NAME" at a fixed address, so that a pointer into the arena is valid
  // in every process that maps it.  By default the first arena is at 0x200040000000, and the next
  // ones follow; ASLR and sanitizers do not use these addresses.  Under ThreadSanitizer they start
  // at 0x7e8000000000.  `capacity` may exceed the machine's memory, but counts for RLIMIT_AS.
  // Thread-safe.  Errors: invalid_argument, address_taken (the message says by what), system_call,
  // unsupported (no membarrier(2)).
  static Expected<Arena> create(const ArenaOptions& options);

  Arena(Arena&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)),
        resource_(std::exchange(other.resource_, internal::resource_of_no_arena())) {}
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  // Returns `size` bytes at a multiple of `alignment`, a power of two.  The bytes of a block that
  // is used again are not zeroed.  Sizes are rounded up to four classes per power of two, such as
  // 4, 5, 6, 7, 8, 10, 12 GiB; a block can take the whole capacity if that is one of them.  The
  // memory is allocated when this returns, so there is no SIGBUS later.  But the kernel may kill a
  // process that exceeds memory.max by memory outside arenas, or because others in its cgroup take
  // memory at the same time, or because the limit is lowered then.  Thread-safe.  Throws
  // ArenaBadAlloc if the arena is full or frozen, or if the memory cgroup or the kernel has no more
  // memory.
  void* allocate(std::size_t size, std::size_t alignment = alignof(std::max_align_t)) {
    return resource_->allocate(size, alignment);
  }

  // Takes the size and the alignment of the allocation.  Does nothing but count if the block is
  // frozen, in this process or in a child, so a frozen block is never used again.  Thread-safe.
  void deallocate(void* block, std::size_t size,
                  std::size_t alignment = alignof(std::max_align_t)) noexcept {
    resource_->deallocate(block, size, alignment);
  }

  // Returns the arena as a resource for std::pmr containers.  After the arena is destroyed, the
  // resource throws on allocation and ignores deallocation.
  std::pmr::memory_resource* resource() const noexcept { return resource_; }

  // Constructs a T in the arena.  Passes the arena's allocator to T, and so to its members, if they
  // take one.  A container of another allocator is refused, see elements_outside.  The arena frees
  // the memory, but does not run ~T; the caller can, before the freeze. Thread-safe.  Errors: those
  // of ArenaBadAlloc.  Exceptions of T's constructor pass through.
  template <class T, class... Args>
  Expected<T*> make(Args&&... args);

  // Constructs an array of `count` value-initialised Ts; else as make().
  template <class T>
  Expected<std::span<T>> make_array(std::size_t count);

  // Makes the arena immutable and seals its memfd.  Returns unused 2 MiB ranges to the kernel, and
  // puts 4 KiB pages into huge ones where it can (see ArenaStats::small_page_bytes).  A lenient
  // arena still takes private writes, see FreezeMode.  A second freeze in the same mode does
  // nothing.
  //
  // Other threads may read during the call, but must not write.  Threads that allocate wait, and
  // then fail with arena_frozen.
  //
  // Errors: arena_frozen (in the other mode), not_inherited, in_use (a thread is inside an
  // ArenaScope of it), unsupported (a sandbox refuses membarrier(2) by now), system_call (EBUSY if
  // another process maps the arena for writing, EBADF if the arena's descriptor was closed).  After
  // an error the arena is as before.  If the kernel refuses to map it for writing again,
  // allocations fail with arena_frozen, and nothing may be written, until freeze() succeeds.
  Expected<void> freeze(const FreezeOptions& options = {});
  Expected<void> freeze(FreezeMode mode) { return freeze(FreezeOptions{.mode = mode}); }

  // Opens a frozen arena for allocation again, in this process, until refreeze().  New blocks lie
  // in the unused part.  The frozen part stays as it is: immutable, or with private writes if
  // lenient. A process that is forked meanwhile has the frozen part only.  Errors:
  // arena_not_frozen, capacity_exceeded (no part is unused), system_call, unsupported (no
  // membarrier(2)).
  Expected<void> thaw();

  // Makes the next generation, frozen and sealed like the first.  It has what this process
  // allocated since thaw(), and what it wrote privately to a lenient arena, thawed or not.  Private
  // pages become shared ones, so later forks are cheap.  Processes with an older generation keep
  // it.
  //
  // The call copies the 2 MiB ranges that were written to.  If there is memory for it, it also
  // copies smaller generations, so that there are at most some log2(bytes / 2 MiB) of them.  Each
  // takes at least 2 MiB.  Other threads must not write meanwhile.  Errors: those of freeze() and
  // thaw().
  Expected<void> refreeze(const Progress& progress = nullptr);

  // Puts 4 KiB pages into 2 MiB pages where it can, before or after the freeze.  Takes 0.3 to 2 s
  // per GiB.  After the freeze it serves this process and later ones.  Returns the bytes in huge
  // pages.  Errors: not_inherited, unsupported as in freeze().
  Expected<std::size_t> collapse(const Progress& progress = nullptr);

  // Maps all pages of a frozen arena into this process, so that later reads raise no page faults.
  // Call it in children, which start with no page mapped.  Errors: arena_not_frozen, not_inherited,
  // system_call.
  Expected<void> prefault() const;

  // Returns how many bytes of the frozen arena this process has copied; 0 means that it shares all.
  // Needs no privilege.  Since Linux 6.7 the kernel checks 2 MiB pages, before that 4 KiB pages.
  // Errors: arena_not_frozen, not_inherited, system_call.
  Expected<std::size_t> private_bytes() const;

  // Unmaps the arena in this process now, also if it has blocks of an ArenaScope, such as the
  // object of ArenaScope::make(), which nothing destroys.  Its pointers are invalid then; the
  // handle is as after a move.  Memory is free when the last process has unmapped it: a child that
  // was forked before maps it until its own discard() or end.  Errors: in_use (a thread is inside
  // an ArenaScope of it).
  Expected<void> discard();

  // Returns whether the address is in the arena's range, by two comparisons.  Thread-safe.
  bool contains(const void* address) const noexcept;

  // Returns a snapshot.  It is exact, except that blocks in the cache of a thread inside an
  // ArenaScope count as live.  Stops allocations for a moment.  Thread-safe.
  ArenaStats stats() const;

  std::string_view name() const noexcept;
  std::byte* base() const noexcept;  // 2 MiB aligned

 private:
  friend class internal::ArenaAccess;
  friend class ArenaScope;
  friend class UseArena;
  explicit Arena(internal::ArenaCore& core) noexcept;

  template <class Function>
  auto work(Function function) const -> decltype(function());
  template <class Function>
  Expected<void> change(Function function);

  internal::ArenaCore* core_;          // null when moved from
  internal::ArenaResource* resource_;  // the core's, or resource_of_no_arena()
};

template <class T, class... Args>
Expected<T*> Arena::make(Args&&... args) {
  static_assert(!elements_outside<T>,
                "this container's elements would lie outside the arena: use its std::pmr type, "
                "ArenaAllocator, or ArenaScope::make(); or see elements_outside in arena.h");
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
  static_assert(!elements_outside<T>,
                "the elements of these containers would lie outside the arena: use their std::pmr "
                "type, or see elements_outside in arena.h");
  constexpr std::size_t kMost = static_cast<std::size_t>(-1);  // more than any arena has
  const std::size_t bytes = count > kMost / sizeof(T) ? kMost : count * sizeof(T);
  std::pmr::polymorphic_allocator<> allocator(resource());
  try {
    T* first = static_cast<T*>(allocator.allocate_bytes(bytes, alignof(T)));
    std::size_t made = 0;
    try {
      for (; made < count; ++made)
        std::uninitialized_construct_using_allocator(first + made, allocator);
      return std::span<T>(first, count);
    } catch (...) {
      std::destroy_n(first, made);
      allocator.deallocate_bytes(first, bytes, alignof(T));
      throw;
    }
  } catch (const ArenaBadAlloc& failure) {
    return internal::refusal_of(failure);
  }
}

}  // namespace cowshed
