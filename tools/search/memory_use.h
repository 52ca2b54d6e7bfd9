#pragma once

#include <cstddef>
#include <cstdint>

#include <cowshed/base/error.h>

// What a process knows of its own memory, without cowtop.
namespace cowshed::search {

struct AddressRange {
  std::uintptr_t begin;
  std::uintptr_t end;
};

// Bytes that nobody else maps and that were written to: Private_Dirty of smaps_rollup.  A page that
// fork() shares counts in none of its processes; a copy counts in the one that made it.
Expected<std::uint64_t> private_bytes();

// Bytes of private copies among the file mappings in this range: Anonymous of smaps.
Expected<std::uint64_t> copied_bytes(AddressRange range);

// What malloc has handed out and not got back.
std::size_t heap_in_use();

}  // namespace cowshed::search
