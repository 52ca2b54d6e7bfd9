#pragma once

#include <string>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/analysis/findings.h>

namespace cowshed::cowtop {

// The lines before the table of processes: the verdict, what crashed, the memory of all, how it was
// counted, and what is in none of the figures.
// `findings`: the verdict first.
std::string head_lines(const cow::Measurement& measurement, const Summary& summary,
                       const std::vector<Finding>& findings);

}  // namespace cowshed::cowtop
