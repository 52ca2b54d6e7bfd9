#pragma once

#include <string>
#include <vector>

#include <cowshed/tools/cowtop/analysis/remedies.h>

namespace cowshed::cowtop {

// The most runs of a command, as it is or with a remedy, that it takes to see what is chance.
inline constexpr unsigned kMostToCompare = 3;

// What cure is about to do, before it knows anything of the command: lines.  `cures`: those that
// the first run may suggest.  `runs`: of each.
std::string plan_text(const std::vector<std::string>& command, const std::vector<Cure>& cures,
                      unsigned runs);

}  // namespace cowshed::cowtop
