#pragma once

#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// Sums the memory of a process tree, now and then: at most every 100 ms, and for at most a 200th
// of one CPU's time.
class TreeMemoryMeter {
 public:
  // Reads the memory of each of `pids` if it is time to.  No two of them may share an address
  // space, as a child of vfork and its parent do.
  void sample(const ProcFiles& proc, const std::vector<pid_t>& pids);
  // nullopt: not sampled yet, or none could be read.
  const std::optional<TreeMemory>& memory() const { return memory_; }

 private:
  static constexpr std::uint64_t kCostFactor = 200;
  static constexpr std::uint64_t kLeastPauseNs = 100'000'000;

  internal::DutyCycle pace_{kCostFactor, kLeastPauseNs};
  std::optional<TreeMemory> memory_;
};

}  // namespace cowshed::cow
