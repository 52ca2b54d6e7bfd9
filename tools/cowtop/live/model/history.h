#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include <cowshed/cow/fork_copies.h>

namespace cowshed::cowtop::live {

using cow::ProcessId;

// The figures of each process in the last measurements.
class History {
 public:
  static constexpr std::size_t kPoints = 10;

  // Adds a measurement, which must not be older than the last, and its fork_copies().
  void add(const cow::Measurement& measurement, const std::vector<cow::ForkCopies>& copies);

  // Returns the rate between the last two measurements, for a new process since its start. nullopt:
  // unknown.
  std::optional<double> copied_per_second(const cow::ProcessCopies& process) const;
  // Returns the known values of still_shared_ratio(), the oldest first.
  std::vector<double> curve(ProcessId id) const;
  // Returns when its end was first seen; 0: it is alive.
  std::uint64_t ended_ns(ProcessId id) const;

 private:
  struct Point {
    std::uint64_t taken_ns = 0;
    std::optional<std::uint64_t> copied_bytes;
    std::optional<double> still_shared;
  };
  struct Process {
    std::deque<Point> points;
    std::uint64_t ended_ns = 0;
    std::uint64_t seen_ns = 0;
  };
  std::map<ProcessId, Process> processes_;
  std::uint64_t taken_ns_ = 0;
  std::uint64_t begin_ns_ = 0;  // of the measurement
};

}  // namespace cowshed::cowtop::live
