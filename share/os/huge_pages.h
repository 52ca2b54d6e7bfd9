#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/size_literals.h>
#include <cowshed/share/os/runs.h>

// Huge pages, by MADV_COLLAPSE, and their absence.
namespace cowshed::internal {

using arch::kHugePage;
inline constexpr std::size_t kPage = arch::kLargestPage;

// Each call drains every CPU's page lists, so collapse so much at once.
constexpr std::size_t kCollapseStep = 64_MiB;

// Makes huge pages of a range whose size is a multiple of 2 MiB.  Returns 0 or an errno; EINVAL
// also if a 2 MiB range has no page at all.  Needs no setting of transparent huge pages.
int collapse_range(std::uintptr_t begin, std::size_t size) noexcept;

// Makes huge pages of these runs of a mapping that begins at `begin`.  Returns the runs that could
// not be collapsed, and stores the last errno in `error`.
std::vector<Run> collapse_runs(
    std::uintptr_t begin, const std::vector<Run>& runs,
    const std::function<void(std::size_t done, std::size_t total)>& progress, int& error);

// For what most processes need little of: where the kernel always gives huge pages, the first write
// would take 2 MiB.
void keep_in_small_pages(void* memory, std::size_t size) noexcept;

}  // namespace cowshed::internal
