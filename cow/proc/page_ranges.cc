#include <algorithm>

#include <cowshed/cow/page_ranges.h>

namespace cowshed::cow {

void PageRanges::append(PageRange range) {
  if (range.begin >= range.end) return;
  if (!ranges_.empty() && ranges_.back().end == range.begin) ranges_.back().end = range.end;
  else ranges_.push_back(range);
}

std::uint64_t PageRanges::bytes() const {
  std::uint64_t total = 0;
  for (const PageRange& range : ranges_) total += range.end - range.begin;
  return total;
}

std::uint64_t PageRanges::bytes_within(PageRange range) const {
  std::uint64_t total = 0;
  auto next = std::ranges::upper_bound(ranges_, range.begin, {}, &PageRange::end);
  for (; next != ranges_.end() && next->begin < range.end; ++next)
    total += std::min(next->end, range.end) - std::max(next->begin, range.begin);
  return total;
}

PageRanges intersect(const PageRanges& left, const PageRanges& right) {
  PageRanges result;
  auto a = left.ranges_.begin();
  auto b = right.ranges_.begin();
  while (a != left.ranges_.end() && b != right.ranges_.end()) {
    result.append({std::max(a->begin, b->begin), std::min(a->end, b->end)});
    if (a->end < b->end) ++a;
    else ++b;
  }
  return result;
}

PageRanges unite(const PageRanges& left, const PageRanges& right) {
  PageRanges result;
  auto a = left.ranges_.begin();
  auto b = right.ranges_.begin();
  while (a != left.ranges_.end() || b != right.ranges_.end()) {
    const bool from_left =
        b == right.ranges_.end() || (a != left.ranges_.end() && a->begin <= b->begin);
    PageRange next = from_left ? *a++ : *b++;
    if (!result.ranges_.empty() && next.begin < result.ranges_.back().end)
      next.begin = std::min(result.ranges_.back().end, next.end);
    result.append(next);
  }
  return result;
}

PageRanges subtract(const PageRanges& left, const PageRanges& right) {
  PageRanges result;
  auto hole = right.ranges_.begin();
  for (PageRange range : left.ranges_) {
    while (hole != right.ranges_.end() && hole->end <= range.begin) ++hole;
    for (auto each = hole; each != right.ranges_.end() && each->begin < range.end; ++each) {
      result.append({range.begin, each->begin});
      range.begin = std::min(each->end, range.end);
    }
    result.append(range);
  }
  return result;
}

}  // namespace cowshed::cow
