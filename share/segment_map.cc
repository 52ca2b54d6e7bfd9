#include <algorithm>

#include <cowshed/share/segment_map.h>

namespace cowshed {

void SegmentMap::show(const Run& run, int fd) {
  if (run.begin == run.end) {
    return;
  }
  std::vector<Segment> result;
  const auto keep = [&](Segment segment, std::size_t begin, std::size_t end) {
    if (begin < end) {
      segment.run = {begin, end};
      result.push_back(segment);
    }
  };
  for (const Segment& segment : segments_) {
    keep(segment, segment.run.begin, std::min(segment.run.end, run.begin));
    keep(segment, std::max(segment.run.begin, run.end), segment.run.end);
  }
  result.push_back({run, fd});
  std::sort(result.begin(), result.end(),
            [](const auto& a, const auto& b) { return a.run.begin < b.run.begin; });
  segments_ = std::move(result);
}

std::vector<int> SegmentMap::files() const {
  std::vector<int> result;
  for (const Segment& segment : segments_) {
    if (std::find(result.begin(), result.end(), segment.fd) == result.end()) {
      result.push_back(segment.fd);
    }
  }
  return result;
}

}  // namespace cowshed
