#pragma once

#include <cstddef>
#include <cstdint>

// Which addresses this process's arenas get, so that no other process of its tree has an arena
// there (process_tree.h): a result that a worker built must find its place free in the parent.
//
// The unit is a GiB: what a table of page tables, and a leaf of jemalloc's map, cover.  Smaller
// arenas share one, 2 MiB apart.  A GiB is claimed by writing one's PID beside it, and free when
// that process is dead or has left it.  The search goes round, so that a process which nobody can
// ask, and which still has an old arena at some place, is met only after 48 TiB of others.
namespace cowshed {

enum class Holder : std::uint8_t {
  this_process,  // it answers for the place from now on
  sender,        // which lives at least as long as this process needs it to
};

namespace addresses {

// A place for `size` bytes in this one of process_tree::kRanges; 0: none.
std::uintptr_t take(std::size_t range, std::size_t size);

// Something else is mapped there, up to `end`: the search goes on after it.
void skip(std::size_t range, std::uintptr_t begin, std::size_t size, std::uintptr_t end);

// An arena was mapped at a place that was not taken here.
void hold(std::uintptr_t begin, std::size_t size, Holder holder);

// It is no longer mapped.
void leave(std::uintptr_t begin, std::size_t size, bool known_elsewhere);

}  // namespace addresses
}  // namespace cowshed
