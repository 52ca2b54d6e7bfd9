#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop::live {

using cow::ProcessId;

// What it has not copied of what was shared at its fork; nullopt where either is not known, and
// after an exec, which ends the sharing.
std::optional<double> still_shared(const cow::ProcessCopies& process);

// What the last measurements had of each process.
class History {
 public:
  static constexpr std::size_t kPoints = 10;

  // One that is older than the last begins anew.
  void add(const cow::Measurement& measurement);

  // Between the last two; of a process that is new, since its start or that of the measurement.
  // nullopt where it is not known.
  std::optional<double> copied_per_second(const cow::ProcessCopies& process) const;
  // still_shared(), the oldest first; nothing of what was not known.
  std::vector<double> curve(ProcessId id) const;
  // When it was first seen to have ended; 0 for one that is alive.
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
