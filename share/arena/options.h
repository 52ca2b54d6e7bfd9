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

// The options, statistics and exception of an Arena.
namespace cowshed {

// What happens when a process writes to a frozen arena.
enum class FreezeMode : std::uint8_t {
  strict,   // the process gets SIGSEGV, after a report, see stray_write.h
  lenient,  // the kernel copies the 4 KiB page for the process that writes
};

struct ArenaOptions {
  std::string name;            // 1 to 63 printable characters; names need not differ
  std::size_t capacity = 0;    // bytes, rounded up to 2 MiB; takes address space, not memory
  std::uintptr_t address = 0;  // a multiple of 2 MiB; 0: choose one
  // Use 2 MiB pages: they are faster to fill and to read, and fork() takes constant time.  If
  // false, the arena has 4 KiB pages, also after the freeze; Arena::collapse() can change that.
  bool huge_pages = true;
};

// Called every 64 MiB or so of a long operation, with bytes, on the caller's thread.  It must not
// throw, fork, or use the arena.  A fork() in another thread waits until the operation ends.
using Progress = std::function<void(std::size_t done, std::size_t total)>;

struct FreezeOptions {
  FreezeMode mode = FreezeMode::strict;
  Progress progress = nullptr;
};

struct ArenaStats {
  std::size_t capacity = 0;    // bytes
  std::size_t used = 0;        // bytes up to the end of the last 2 MiB range in use
  std::size_t live_bytes = 0;  // of blocks that were not deallocated before the freeze, rounded up
                               // to jemalloc's size classes
  std::uint64_t live_allocations = 0;
  // Bytes of memory without a live block: fragmentation, and unused parts of 2 MiB pages.
  std::size_t hole_bytes = 0;
  std::size_t returned_bytes = 0;    // bytes of `used` that a freeze gave back to the kernel
  std::uint64_t dropped_frees = 0;   // deallocations of frozen blocks, in this process
  std::size_t huge_page_bytes = 0;   // bytes of `used` in 2 MiB pages
  std::size_t small_page_bytes = 0;  // bytes of `used` in 4 KiB pages
  int huge_page_error = 0;           // errno of the last MADV_COLLAPSE that failed; 0 if none has
  std::uint32_t generation = 0;      // how often the arena was frozen
  bool frozen = false;
  FreezeMode mode = FreezeMode::strict;  // of the last freeze
};

// Thrown by allocations.  what() is one line that names the arena and what to do.  The error's code
// is capacity_exceeded, out_of_memory, arena_frozen, not_inherited, system_call, or
// invalid_argument.  system_call means that the kernel or a sandbox refuses fallocate(2), but not
// for want of memory, or that the arena's descriptor was closed (EBADF).  invalid_argument means
// that the arena was destroyed before its resource(), or that the Arena was moved from.
class ArenaBadAlloc : public std::bad_alloc {
 public:
  explicit ArenaBadAlloc(Error error) : error_(std::make_shared<const Error>(std::move(error))) {}
  const char* what() const noexcept override { return error_->message.c_str(); }
  const Error& error() const noexcept { return *error_; }

 private:
  std::shared_ptr<const Error> error_;
};

}  // namespace cowshed
