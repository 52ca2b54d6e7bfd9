#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/share/size_literals.h>

// Memory for one set of objects, which a process fills, freezes, and then shares with every process
// that it forks: same addresses, no copies.
//
//   auto arena = cowshed::Arena::create({.name = "index", .capacity = 64_GiB});
//   auto index = arena->make<Index>(...);   // std::pmr members of Index use the arena too
//   arena->freeze();                        // immutable from here, in huge pages
//   cowshed::start({.count = 8}, ...);      // workers.h
namespace cowshed {

class ArenaCore;

// What a frozen arena does with a store.
enum class FreezeMode : std::uint8_t {
  strict,   // the store faults: SIGSEGV, reported first as stray_write.h says
  lenient,  // the kernel copies the 4 KiB page for the process that wrote, which goes on
};

struct ArenaOptions {
  std::string name;            // 1 to 63 printable characters; names need not differ
  std::size_t capacity = 0;    // bytes, rounded up to 2 MiB; takes address space, not memory
  std::uintptr_t address = 0;  // where to put it, a multiple of 2 MiB; 0 chooses
};

struct ArenaStats {
  std::size_t capacity = 0;    // bytes
  std::size_t used = 0;        // bytes of the range taken so far, a multiple of 2 MiB
  std::size_t live_bytes = 0;  // sum of the sizes allocated and not deallocated before freeze
  std::uint64_t live_allocations = 0;
  std::uint64_t dropped_frees = 0;  // deallocations that came after the freeze, in this process
  std::size_t huge_page_bytes = 0;  // of `used`, in 2 MiB pages; 0 before freeze
  bool frozen = false;
  FreezeMode mode = FreezeMode::strict;  // meaningful when frozen
};

// Thrown by Arena::resource(); what() is one line that names the arena and what to do.  Its error's
// code is capacity_exceeded, arena_frozen or not_inherited.
class ArenaBadAlloc : public std::bad_alloc {
 public:
  explicit ArenaBadAlloc(Error error) : error_(std::make_shared<const Error>(std::move(error))) {}
  const char* what() const noexcept override { return error_->message.c_str(); }
  const Error& error() const noexcept { return *error_; }

 private:
  std::shared_ptr<const Error> error_;
};

// A handle that owns the arena; moving it moves no object.  Destroying it unmaps the arena in this
// process only and makes its published references `released`; it runs no destructor of an object.
// What stays is 2 MiB of address space for each arena ever created: jemalloc keeps its records.
//
// Fork: an arena that is not yet frozen is not inherited (MADV_DONTFORK), since a child's stores
// would show in the parent.  There every call answers not_inherited and the parent is unaffected.
class Arena {
 public:
  // A memfd named "cowshed:NAME", mapped at a fixed address, so that pointers into the arena mean
  // the same in every process that maps it.  Chosen addresses start at 0x200000000000, one arena
  // after the other (0x7e8000000000 where the first is refused: ThreadSanitizer); neither ASLR nor
  // other sanitizers use them.  `capacity` may exceed the machine's memory; RLIMIT_AS sees it.
  // Errors: invalid_argument, address_taken (naming what is there), system_call, unsupported (no
  // membarrier(2)).  Thread-safe.
  static Expected<Arena> create(const ArenaOptions& options);

  Arena(Arena&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  // For std::pmr containers; valid until the arena is destroyed, in forked children too.  Any
  // number of threads may allocate at once.  allocate() throws ArenaBadAlloc; deallocate() after
  // the freeze is a counted no-op, so that no frozen block is ever handed out again.
  std::pmr::memory_resource* resource() const noexcept;

  // Constructs a T in the arena, giving the arena's allocator to T and its members where they take
  // one.  The arena owns the memory; nobody runs ~T unless the caller does, before the freeze.
  // Errors: those of ArenaBadAlloc.  Exceptions of T's constructor pass through.  Thread-safe.
  template <class T, class... Args>
  Expected<T*> make(Args&&... args);

  // Makes the arena immutable: collapses it to 2 MiB pages where the kernel can (0.3-0.5 s per
  // GiB, see ArenaStats::huge_page_bytes), maps it privately over itself and seals the memfd.
  // Other threads may read meanwhile, but not write; their allocations fail with arena_frozen.
  // Freezing again in the same mode does nothing, in another it is the error arena_frozen.  When
  // the kernel refuses because somebody else maps the arena for writing (system_call, EBUSY, the
  // message names the processes) the arena is as before.  Errors: not_inherited, system_call.
  Expected<void> freeze(FreezeMode mode = FreezeMode::strict);

  // True for an address in the arena's range; two compares.  Thread-safe.
  bool contains(const void* address) const noexcept;

  // A snapshot; figures of other threads may lag.  Thread-safe.
  ArenaStats stats() const;

  std::string_view name() const noexcept;
  std::byte* base() const noexcept;  // 2 MiB aligned

 private:
  explicit Arena(ArenaCore* core) : core_(core) {}

  ArenaCore* core_;  // null when moved from
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
    return tl::make_unexpected(failure.error());
  }
}

}  // namespace cowshed
