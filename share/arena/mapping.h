#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/arena/options.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/process/addresses.h>

namespace cowshed {

// A memfd and the shared, writable mapping of all of it.
struct ArenaMapping {
  int fd;
  std::uintptr_t begin;
  std::size_t size;
};

// A memfd "cowshed:NAME" that can be sealed.
Expected<FileDescriptor> open_memfd(const std::string& name, std::size_t size);

// Makes both, at options.address or at the next free place, left out of forked children.
// Thread-safe.
Expected<ArenaMapping> map_new_arena(const ArenaOptions& options);

// Keeps the range for an arena that has its address already, without access and without memory.
// `who` begins the message, `advice` ends it.  Errors: address_taken (naming what is there),
// system_call.  Thread-safe.
Expected<void> reserve_range(std::uintptr_t begin, std::size_t size, Holder holder,
                             const std::string& who, const std::string& advice);

// Unless other processes may have the arena too, the place is the next to be used again: jemalloc
// keeps 2 MiB of records for ever for each GiB of addresses that it ever saw.
void unmap_arena(std::uintptr_t begin, std::size_t size, bool known_elsewhere = false);

// One line of /proc/self/maps.
struct MapsEntry {
  std::uintptr_t begin;
  std::uintptr_t end;
  std::uint64_t inode;
  std::string name;
};

std::vector<MapsEntry> read_maps();  // empty when it cannot be read

}  // namespace cowshed
