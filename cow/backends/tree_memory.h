#pragma once

#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// Sums the memory of a process tree: every 100 ms while it changes, else every 5 s, for at most a
// 400th of one CPU's time; when it may exceed its peak by a tenth, for 50 ms at first and an 800th
// of the time; and when it may exceed it by a 100th but no longer grows, for 500 ms at first and a
// 200th of the time.
class TreeMemoryMeter {
 public:
  // Reads the memory of each of `pids` if it is time to.  No two of them may share an address
  // space, as a child of vfork and its parent do.  `allocated` is what the processes of the tree
  // have allocated so far, ended ones included, in bytes; 0: not known.
  void sample(const ProcFiles& proc, std::vector<pid_t> pids, std::uint64_t allocated = 0);
  // The next sample() reads it.
  void make_due() { is_wanted_ = true; }
  // nullopt: not sampled yet, or none could be read.
  const std::optional<TreeMemory>& memory() const { return memory_; }

 private:
  bool is_due(const std::vector<pid_t>& pids, std::optional<std::uint64_t> grown);

  static constexpr std::uint64_t kCostFactor = 400;
  static constexpr std::uint64_t kLeastPauseNs = 100'000'000;
  static constexpr std::uint64_t kUnchangedNs = 5'000'000'000;
  static constexpr std::uint64_t kPeaksShare = 800;
  static constexpr std::uint64_t kFirstPeaksNs = 50'000'000;
  static constexpr std::uint64_t kRestsShare = 200;
  static constexpr std::uint64_t kFirstRestsNs = 500'000'000;
  static constexpr std::uint64_t kRestNs = 50'000'000;

  internal::DutyCycle pace_{kCostFactor, kLeastPauseNs};
  internal::TokenBucket peaks_{kPeaksShare, kFirstPeaksNs};
  internal::TokenBucket rests_{kRestsShare, kFirstRestsNs};
  bool is_wanted_ = false;
  std::uint64_t rests_since_ns_ = 0;
  std::uint64_t grown_then_ = 0;
  std::uint64_t last_ns_ = 0;
  std::uint64_t last_allocated_ = 0;
  std::vector<pid_t> last_pids_;  // sorted
  std::optional<TreeMemory> memory_;
};

}  // namespace cowshed::cow
