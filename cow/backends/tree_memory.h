#pragma once

#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// Sums the memory of a process tree: every 100 ms and when processes came or went, for at most a
// twentieth of one CPU's time at first, and an 800th in the long run.
class TreeMemoryMeter {
 public:
  // Reads the memory of each of `pids` if it is time to.  No two of them may share an address
  // space, as a child of vfork and its parent do.
  void sample(const ProcFiles& proc, const std::vector<pid_t>& pids);
  // nullopt: not sampled yet, or none could be read.
  const std::optional<TreeMemory>& memory() const { return memory_; }

 private:
  static constexpr std::uint64_t kCostFactor = 20;
  static constexpr std::uint64_t kLeastPauseNs = 100'000'000;
  static constexpr std::uint64_t kLongShare = 800;
  static constexpr std::uint64_t kBurstNs = 500'000'000;

  internal::DutyCycle pace_{kCostFactor, kLeastPauseNs};
  internal::TokenBucket left_{kLongShare, kBurstNs};
  std::size_t processes_ = 0;  // at the last sample
  std::optional<TreeMemory> memory_;
};

}  // namespace cowshed::cow
