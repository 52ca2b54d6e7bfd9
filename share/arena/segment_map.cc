#include <algorithm>
#include <sys/stat.h>

#include <cowshed/share/arena/segment_map.h>

namespace cowshed {
namespace {

std::size_t memory_of(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 ? static_cast<std::size_t>(status.st_blocks) * 512 : 0;
}

}  // namespace

void SegmentMap::show(const Run& run, int fd) {
  if (run.begin == run.end) return;
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
  for (const Segment& segment : segments_)
    if (std::find(result.begin(), result.end(), segment.fd) == result.end())
      result.push_back(segment.fd);
  return result;
}

std::vector<Run> SegmentMap::shown_by(int fd) const {
  std::vector<Run> result;
  for (const Segment& segment : segments_)
    if (segment.fd == fd) result.push_back(segment.run);
  return result;
}

std::size_t SegmentMap::bytes_on_disk(const std::vector<Run>& holes) const {
  std::size_t bytes = 0;
  for (const Segment& segment : segments_)
    bytes += segment.payload == 0 ? 0 : size_of(without({segment.run}, holes));
  return bytes;
}

std::vector<Run> SegmentMap::worth_copying(std::vector<Run> renewed, std::size_t added,
                                           const std::vector<Run>& holes) const {
  struct File {
    int fd;
    std::vector<Run> runs;
    std::size_t bytes;
  };
  std::vector<File> shown;
  for (const int fd : files()) {
    auto runs = without(shown_by(fd), renewed);
    const std::size_t bytes = size_of(without(runs, holes));
    shown.push_back({fd, std::move(runs), bytes});
  }
  std::sort(shown.begin(), shown.end(),
            [](const File& a, const File& b) { return a.bytes < b.bytes; });
  std::size_t size = added + size_of(without(renewed, holes));
  for (const auto& [fd, runs, bytes] : shown) {
    if (bytes <= 2 * size || 2 * bytes < memory_of(fd)) {
      renewed.insert(renewed.end(), runs.begin(), runs.end());
      size += bytes;
    }
  }
  return joined(std::move(renewed));
}

}  // namespace cowshed
