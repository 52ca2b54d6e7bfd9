#pragma once

#include <cstdint>
#include <vector>

#include <cowshed/share/os/runs.h>

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
  std::vector<Run> shown_by(int fd) const;
  std::size_t bytes_on_disk(const std::vector<Run>& holes) const;

  // What a generation that has `added` bytes and shows `renewed` anew had better copy: that, and
  // all of what shows little, so that files stay few (each at least twice as large as the next
  // smaller one, when it is made) and none is kept for a small part of it.  By this a byte is
  // copied in proportion to the logarithm of their number.  `holes` have no memory.
  std::vector<Run> worth_copying(std::vector<Run> renewed, std::size_t added,
                                 const std::vector<Run>& holes) const;

 private:
  std::vector<Segment> segments_;
};

}  // namespace cowshed
