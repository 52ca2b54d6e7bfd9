#include <algorithm>

#include <cowshed/cow/page_ranges.h>

namespace cowshed::cow {

void PageRanges::append(PageRange range) {
  if (range.begin >= range.end) return;
  if (!ranges_.empty() && ranges_.back().end == range.begin) {
    ranges_.back().end = range.end;
  } else {
    ranges_.push_back(range);
  }
}

std::uint64_t PageRanges::bytes() const {
  std::uint64_t total = 0;
  for (const PageRange& range : ranges_) total += range.end - range.begin;
  return total;
}

PageRanges intersect(const PageRanges& left, const PageRanges& right) {
  PageRanges result;
  auto a = left.ranges_.begin();
  auto b = right.ranges_.begin();
  while (a != left.ranges_.end() && b != right.ranges_.end()) {
    result.append({std::max(a->begin, b->begin), std::min(a->end, b->end)});
    if (a->end < b->end) {
      ++a;
    } else {
      ++b;
    }
  }
  return result;
}

}  // namespace cowshed::cow
