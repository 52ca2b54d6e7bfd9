#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/size_literals.h>

// What a user tells an Arena, and is told.
namespace cowshed {

// What a frozen arena does with a store.
enum class FreezeMode : std::uint8_t {
  strict,   // the store faults: SIGSEGV, reported first as stray_write.h says
  lenient,  // the kernel copies the 4 KiB page for the process that wrote, which goes on
};

struct ArenaOptions {
  std::string name;            // 1 to 63 printable characters; names need not differ
  std::size_t capacity = 0;    // bytes, rounded up to 2 MiB; takes address space, not memory
  std::uintptr_t address = 0;  // where to put it, a multiple of 2 MiB; 0 chooses
  // Take memory in 2 MiB pages: faster to fill and to read, and fork() stays constant.  false takes
  // 4 KiB pages, also at the freeze; Arena::collapse() makes up for it at any time.
  bool huge_pages = true;
};

// Told how far a long step is, in bytes, every 64 MiB or so, on the caller's thread.  It must not
// throw, fork, or use the arena.  A fork() in another thread waits for the step's end.
using Progress = std::function<void(std::size_t done, std::size_t total)>;

struct FreezeOptions {
  FreezeMode mode = FreezeMode::strict;
  Progress progress = nullptr;
};

struct ArenaStats {
  std::size_t capacity = 0;    // bytes
  std::size_t used = 0;        // bytes, a multiple of 2 MiB: up to the end of the last one in use
  std::size_t live_bytes = 0;  // of blocks not deallocated before the freeze, rounded up to
                               // jemalloc's size classes
  std::uint64_t live_allocations = 0;
  // Bytes of memory in `used` without a live block: what is fragmented, and what the last 2 MiB
  // pages have left.
  std::size_t hole_bytes = 0;
  std::size_t returned_bytes = 0;    // of `used`, given back to the kernel at the freezes
  std::uint64_t dropped_frees = 0;   // deallocations that came after the freeze, in this process
  std::size_t huge_page_bytes = 0;   // of `used`, in 2 MiB pages
  std::size_t small_page_bytes = 0;  // of `used`, in 4 KiB pages
  int huge_page_error = 0;           // errno of the last MADV_COLLAPSE that failed; 0: none has
  std::uint32_t generation = 0;      // how often it was frozen
  bool frozen = false;
  FreezeMode mode = FreezeMode::strict;  // of the last freeze
};

// Thrown by Arena::resource(); what() is one line that names the arena and what to do.  Its error's
// code is capacity_exceeded, out_of_memory, arena_frozen, not_inherited, or invalid_argument: the
// arena was destroyed before its resource(), or the Arena was moved from.
class ArenaBadAlloc : public std::bad_alloc {
 public:
  explicit ArenaBadAlloc(Error error) : error_(std::make_shared<const Error>(std::move(error))) {}
  const char* what() const noexcept override { return error_->message.c_str(); }
  const Error& error() const noexcept { return *error_; }

 private:
  std::shared_ptr<const Error> error_;
};

}  // namespace cowshed
