#pragma once

#include <cstdint>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cow {

// An address range [begin, end), aligned to pages.
struct PageRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool operator==(const PageRange&) const = default;
};

// Returns the pages that [address, address + bytes) overlaps.
inline PageRange pages_around(std::uint64_t address, std::uint64_t bytes) {
  return {address / kPageSize * kPageSize,
          (address + bytes + kPageSize - 1) / kPageSize * kPageSize};
}

// A set of pages, as sorted ranges that neither overlap nor touch.  A value.
class PageRanges {
 public:
  PageRanges() = default;

  // Adds a range that begins at or after the end of the last one.  Adjacent ranges are merged.
  void append(PageRange range);

  const std::vector<PageRange>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  std::uint64_t bytes() const;
  std::uint64_t bytes_within(PageRange range) const;
  bool operator==(const PageRanges&) const = default;

  friend PageRanges intersect(const PageRanges& left, const PageRanges& right);
  friend PageRanges unite(const PageRanges& left, const PageRanges& right);
  friend PageRanges subtract(const PageRanges& left, const PageRanges& right);

 private:
  std::vector<PageRange> ranges_;
};

PageRanges intersect(const PageRanges& left, const PageRanges& right);
PageRanges unite(const PageRanges& left, const PageRanges& right);
PageRanges subtract(const PageRanges& left, const PageRanges& right);

}  // namespace cowshed::cow
