#pragma once

#include <cstddef>
#include <cstdint>

// Chooses addresses for arenas.  No two processes of a tree (tree.h) get the same ones, so that a
// parent can map an arena that a worker has built.
//
// Addresses are claimed in units of 1 GiB, because a page table of the third level and a leaf of
// jemalloc's map cover one.  Small arenas share a unit, 2 MiB apart.  A process claims a unit by
// writing its PID into the tree's memory.  The unit is free when the process is dead or has left
// it. The search goes round: a unit is used again only after 48 TiB of others, in case a process
// still has an old arena there.
namespace cowshed::addresses {

enum class Holder : std::uint8_t {
  this_process,  // claims the units from now on
  sender,        // has claimed them, and lives as long as this process needs them
};

// Claims `size` bytes in this one of process_tree::kRanges.  Returns their address; 0: none is
// free.
std::uintptr_t take(std::size_t range, std::size_t size);

// Leaves what take() returned, because another mapping is there, and continues the search at its
// end.
void skip(std::size_t range, std::uintptr_t begin, std::size_t size, std::uintptr_t end);

// Notes an arena whose address did not come from take().
void hold(std::uintptr_t begin, std::size_t size, Holder holder);

// Notes that an arena was unmapped.  If no other process knows it, its addresses are used next.
void leave(std::uintptr_t begin, std::size_t size, bool known_elsewhere);

}  // namespace cowshed::addresses
