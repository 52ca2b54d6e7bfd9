#include <algorithm>

#include <cowshed/share/os/runs.h>

namespace cowshed::internal {

void append(std::vector<Run>& runs, const Run& run, std::size_t gap) {
  if (!runs.empty() && run.begin <= runs.back().end + gap)
    runs.back().end = std::max(runs.back().end, run.end);
  else runs.push_back(run);
}

std::vector<Run> joined(std::vector<Run> runs) {
  std::ranges::sort(runs, {}, &Run::begin);
  std::vector<Run> result;
  for (const Run& run : runs) append(result, run);
  return result;
}

std::size_t size_of(const std::vector<Run>& runs) {
  std::size_t total = 0;
  for (const Run& run : runs) total += run.end - run.begin;
  return total;
}

std::vector<Run> without(const std::vector<Run>& runs, const std::vector<Run>& holes) {
  std::vector<Run> result;
  for (const Run& run : runs) {
    std::size_t from = run.begin;
    for (const Run& hole : holes) {
      if (hole.end <= from || hole.begin >= run.end) continue;
      if (hole.begin > from) result.push_back({from, hole.begin});
      from = hole.end;
    }
    if (from < run.end) result.push_back({from, run.end});
  }
  return result;
}

}  // namespace cowshed::internal
