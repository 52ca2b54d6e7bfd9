#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/analysis/summary.h>

namespace cowshed::cowtop {

// A remedy that the evidence of a measurement supports.
struct Advice {
  std::string text;               // imperative, in a line
  std::uint64_t saves_bytes = 0;  // at most; 0: nothing by itself
};

// The most saving first, and second how to get the names that CODE lacks.  Empty where little was
// copied, or the evidence supports no remedy.
std::vector<Advice> advise(const cow::Measurement& measurement, const Summary& summary);

}  // namespace cowshed::cowtop
