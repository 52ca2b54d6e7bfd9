#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <cowshed/share/arena.h>

namespace cowshed {

constexpr std::size_t kHugePage = 2_MiB;

// Each call drains every CPU's page lists, so ask for much at once.
constexpr std::size_t kCollapseStep = 64_MiB;

// MADV_COLLAPSE: puts the pages of a range, a multiple of 2 MiB, into huge ones.  Returns 0 or the
// errno; EINVAL also where a range has no page at all.  Needs no setting of transparent huge pages.
int collapse_range(std::uintptr_t begin, std::size_t size) noexcept;

// The same, where one range that cannot be collapsed must not hold up the others: tells for each.
template <class Visitor>  // (std::size_t range, int error)
void collapse_each(std::uintptr_t begin, std::size_t size, Visitor visit) {
  for (std::size_t offset = 0; offset < size; offset += kCollapseStep) {
    const std::size_t step = std::min(kCollapseStep, size - offset);
    const bool whole = collapse_range(begin + offset, step) == 0;
    for (std::size_t part = offset; part < offset + step; part += kHugePage) {
      visit(part / kHugePage, whole ? 0 : collapse_range(begin + part, kHugePage));
    }
  }
}

// The same for these ranges, by their numbers in order, neighbours together.
void collapse_ranges(std::uintptr_t begin, const std::vector<std::size_t>& ranges,
                     const Progress& progress,
                     const std::function<void(std::size_t range, int error)>& visit);

}  // namespace cowshed
