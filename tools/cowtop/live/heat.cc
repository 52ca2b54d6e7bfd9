#include <algorithm>
#include <map>

#include <cowshed/cow/process_copies.h>
#include <cowshed/tools/cowtop/live/heat.h>

namespace cowshed::cowtop::live {
namespace {

using Ranges = std::vector<const cow::RangeCopies*>;

double bytes_of(const cow::RangeCopies& range) {
  return static_cast<double>(range.end - range.begin);
}

double copied_of(const cow::RangeCopies& range) {
  const double bytes = static_cast<double>(range.estimated_copies * cow::kPageSize);
  return std::min(bytes / bytes_of(range), 1.0);
}

HeatStrip strip_of(const std::string& mapping, Ranges ranges, std::size_t parts) {
  std::sort(ranges.begin(), ranges.end(),
            [](const auto* a, const auto* b) { return a->begin < b->begin; });
  HeatStrip strip{mapping, ranges.front()->begin, ranges.back()->end, std::vector<double>(parts)};
  double all = 0;
  for (const cow::RangeCopies* range : ranges) all += bytes_of(*range);
  const double part = all / static_cast<double>(parts);
  double begin = 0;  // of the range, among those of the strip
  for (const cow::RangeCopies* range : ranges) {
    const double end = begin + bytes_of(*range);
    for (auto i = static_cast<std::size_t>(begin / part); i < parts; ++i) {
      const double from = std::max(begin, static_cast<double>(i) * part);
      const double to = std::min(end, static_cast<double>(i + 1) * part);
      if (to <= from && static_cast<double>(i) * part >= end) break;
      strip.heat[i] += std::max(to - from, 0.0) / part * copied_of(*range);
    }
    begin = end;
  }
  return strip;
}

}  // namespace

std::vector<HeatStrip> heat_strips(const cow::SampledCopies& sampled, std::size_t most,
                                   std::size_t parts) {
  std::map<std::string, Ranges> by_mapping;
  for (const cow::RangeCopies& range : sampled.ranges) {
    if (range.end > range.begin) by_mapping[range.mapping].push_back(&range);
  }
  std::vector<HeatStrip> strips;
  for (const cow::MappingCopies& mapping : sampled.mappings) {
    const auto found = by_mapping.find(mapping.name);
    if (found == by_mapping.end() || strips.size() == most) continue;
    strips.push_back(strip_of(mapping.name, found->second, parts));
  }
  return strips;
}

}  // namespace cowshed::cowtop::live
