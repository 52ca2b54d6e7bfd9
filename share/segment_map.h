#pragma once

#include <cstdint>
#include <vector>

#include <cowshed/share/freeze.h>

namespace cowshed {

// A run of a frozen arena, and the file that has its pages, `payload` bytes further on.
struct Segment {
  Run run;
  int fd = -1;
  std::uint64_t payload = 0;  // of a memfd 0
};

// Which file shows where: a frozen arena is a patchwork of its generations.
class SegmentMap {
 public:
  SegmentMap() = default;
  explicit SegmentMap(std::vector<Segment> segments) : segments_(std::move(segments)) {}

  void show(const Run& run, int fd);  // in place of what showed there

  const std::vector<Segment>& segments() const { return segments_; }  // in order
  std::vector<int> files() const;                                     // each once

 private:
  std::vector<Segment> segments_;
};

}  // namespace cowshed
