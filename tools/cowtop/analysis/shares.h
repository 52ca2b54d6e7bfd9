#pragma once

#include <cstdint>
#include <vector>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/analysis/summary.h>

// What was copied or is new, as shares by mapping, cause, type and line.
namespace cowshed::cowtop {

// Adds the shares to a summary that has its sums.  `copies`: of each process.
void add_shares(const cow::Measurement& measurement, const std::vector<cow::ForkCopies>& copies,
                Summary& summary);

// Copies that neither a fork's sharing nor the program's end explains.
std::uint64_t first_writes_to_files(const cow::ProcessCopies& process,
                                    const cow::ForkCopies& copies);

}  // namespace cowshed::cowtop
