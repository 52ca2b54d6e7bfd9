#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/arena/options.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/process/addresses.h>

// An arena's file and its mapping at addresses of its own.
namespace cowshed::internal {

// A memfd and the shared, writable mapping of all of it.
struct ArenaMapping {
  HeldFile file;
  std::uintptr_t begin;
  std::size_t size;
};

// A memfd "cowshed:NAME" that can be sealed.
Expected<FileDescriptor> open_memfd(const std::string& name, std::size_t size);

// Makes an arena's memfd and maps it at options.address, or at the next free address.  Forked
// children do not inherit the mapping.  Thread-safe.
Expected<ArenaMapping> map_new_arena(const ArenaOptions& options);

// Maps the file at the given range, shared and writable.  If `fd` is -1, reserves the range,
// inaccessible and without memory.  `who` begins the message, `advice` ends it.  Errors:
// address_taken (the message says by what), system_call.  Thread-safe.
Expected<void> map_range(int fd, std::uintptr_t begin, std::size_t size, addresses::Holder holder,
                         const std::string& who, const std::string& advice);

// Unmaps the range.  Its addresses are the next to be used again, unless other processes may have
// the arena.  That saves memory: jemalloc keeps 2 MiB of records for each GiB that it ever saw.
void unmap_arena(std::uintptr_t begin, std::size_t size, bool known_elsewhere = false);

}  // namespace cowshed::internal
