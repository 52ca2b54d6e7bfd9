#pragma once

#include <string>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/analysis/summary.h>

namespace cowshed::cowtop {

// The lines before the table of processes: the verdict, what crashed, the memory of all, how it was
// counted, and what is in none of the figures.
std::string head_lines(const cow::Measurement& measurement, const Summary& summary);

}  // namespace cowshed::cowtop
