#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/os/runs.h>

namespace cowshed {

constexpr std::size_t kHugePage = 2_MiB;

// Each call drains every CPU's page lists, so ask for much at once.
constexpr std::size_t kCollapseStep = 64_MiB;

// MADV_COLLAPSE: puts the pages of a range, a multiple of 2 MiB, into huge ones.  Returns 0 or the
// errno; EINVAL also where a range has no page at all.  Needs no setting of transparent huge pages.
int collapse_range(std::uintptr_t begin, std::size_t size) noexcept;

// The same for these runs of a mapping that begins there, but one range that cannot be collapsed
// does not hold up the others: returns those, and the last one's errno in `error`.
std::vector<Run> collapse_runs(
    std::uintptr_t begin, const std::vector<Run>& runs,
    const std::function<void(std::size_t done, std::size_t total)>& progress, int& error);

}  // namespace cowshed
