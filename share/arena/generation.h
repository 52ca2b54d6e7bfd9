#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <cowshed/share/arena/mapping.h>
#include <cowshed/share/os/runs.h>

namespace cowshed {

// One generation: the file that has its pages, at their offsets in the arena, and which they are.
struct Generation {
  ArenaMapping mapping;   // all of the arena's range; the generation's memfd
  std::size_t first = 0;  // [first, used) is mapped from the memfd, shared; the rest is unused
  std::size_t used = 0;
};

// A memfd for the generation that comes, mapped shared and writable at [first, size) of the arena's
// range, in place of what is there, and left out of forked children.
Expected<ArenaMapping> map_generation(const std::string& name, std::uintptr_t begin,
                                      std::size_t size, std::size_t first);
void unmap_generation(const ArenaMapping& mapping, std::size_t first);

// Copies what the arena shows at these offsets, below the generation's `first`, into the memfd; in
// 2 MiB pages if `huge_pages` and where the kernel has them; else adds to `small`, and `error` is
// the last refusal's errno.
Expected<void> copy_runs(const ArenaMapping& mapping, const std::vector<Run>& runs, bool huge_pages,
                         const std::string& who, const Progress& progress, std::vector<Run>& small,
                         int& error);
void discard_copies(const ArenaMapping& mapping, std::size_t first);

// Turns the shared, writable mapping into the frozen one, makes the rest of the range inaccessible,
// and seals the memfd.  On failure the mapping is what it was before if
// `open_again`; else it shows the same, but the kernel refused to map it for writing again.
Expected<void> seal_generation(const Generation& generation, FreezeMode mode,
                               const std::string& who, bool& open_again);

// Shows the sealed memfd's copies at these offsets.  On failure some stay as they are.
Expected<void> map_copies(const ArenaMapping& mapping, const std::vector<Run>& runs,
                          FreezeMode mode, const std::string& who);

// The 2 MiB ranges of [0, size) in which this process has a private page; neighbours, and those
// with little between them, together: a process has only so many mappings.
Expected<std::vector<Run>> written_runs(std::uintptr_t begin, std::size_t size,
                                        const std::string& who);

// Bytes of private pages.
Expected<std::size_t> count_private_bytes(std::uintptr_t begin, std::size_t size,
                                          const std::string& who);

}  // namespace cowshed
