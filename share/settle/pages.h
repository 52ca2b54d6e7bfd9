#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/settle/mappings.h>

namespace cowshed::settling {

// This process's pages and their bytes, by /proc/self/pagemap and mem.  Only open() allocates
// memory.
class OwnPages {
 public:
  static constexpr std::uint64_t kPresent = 1;
  static constexpr std::uint64_t kElsewhere = 2;
  static constexpr std::uint64_t kOfFile = 3;

  // Uses what this thread has kept, if there is something.
  static Expected<OwnPages> open();
  // Keeps both files open for this thread alone: after setuid(2) nobody can open them.  Closes all
  // descriptors that this thread shares with the others, for this thread.
  static void keep_for_this_thread();

  // Stores for each page from `begin` whether the process has one there: 0; kPresent, of its own;
  // kElsewhere, in swap or unreadable; kOfFile, a file's or a memfd's.  Returns 0 or an errno.
  int look(std::uintptr_t begin, std::span<std::uint64_t> pages) const;

  // Returns the smallest range with all pages of `range`; none: {range.begin, range.begin}.
  Range occupied(const Range& range) const;

  // Reads memory that may be unmapped.  Returns whether it could.
  bool peek(std::uintptr_t address, std::span<std::uint64_t> words) const;

 private:
  FileDescriptor pagemap_;
  FileDescriptor memory_;
};

}  // namespace cowshed::settling
