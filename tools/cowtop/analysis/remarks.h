#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/analysis/summary.h>

namespace cowshed::cowtop {

// The kind of what the largest processes hold by themselves.
inline constexpr std::string_view kOwnMemory = "own_memory";

// A sentence of the report's head, and a finding of its own kind.
struct Remark {
  std::string_view kind = {};
  int weight = 0;  // as those of a Finding
  std::uint64_t bytes = 0;
  std::uint64_t of_bytes = 0;
  std::string text = {};
};

// What is in none of the other figures, or may be missing from them, in the order of the report.
std::vector<Remark> remarks_on(const cow::Measurement& measurement, const Summary& summary);

}  // namespace cowshed::cowtop
