#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace cowshed::cow {

// A mapping of a process in which malloc() of the C library may have memory.
struct HeapPart {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool is_data = false;  // of the C library or the program: it may have the arenas' heads
};

// Reads the process's memory at an address; false: it is not there.
using ReadMemory = std::function<bool(std::uint64_t address, std::span<std::byte> to)>;

// Whole pages in a block that malloc() holds free.
struct FreePages {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool can_trim = true;  // malloc_trim(3) gives them back: not at the top of a thread's arena
};

// Returns the pages in free blocks of malloc() of glibc (2.17 to 2.42, x86-64), in order: those in
// the lists of each arena, and at the top of its heap.  They may have no memory: what was given
// back, say.  nullopt: not known; the process has another malloc, or has ended.
//
// It finds the main arena in `parts` by its list heads, of which the empty ones point to
// themselves, and follows the arena's links.  The process may be hostile, and runs meanwhile: a
// block is believed if it lies in one of the parts and its size stands at its end, too; else its
// list ends there.
std::optional<std::vector<FreePages>> free_pages_of_glibc(const std::vector<HeapPart>& parts,
                                                          const ReadMemory& read);

}  // namespace cowshed::cow
