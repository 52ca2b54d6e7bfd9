#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// A process of a tree.  No two alive may share an address space, as a child of vfork and its parent
// do.
struct TreeProcess {
  std::uint64_t id = 0;  // of no other process
  pid_t pid = 0;
  bool alive = true;
  // So far; nullopt: not counted.
  std::optional<std::uint64_t> copied_bytes = std::nullopt;
  std::uint64_t zero_filled_bytes = 0;
};

// Sums the memory of a process tree (PSS): every 100 ms while it changes, else every 5 s, for at
// most a 400th of one CPU's time; when it may exceed its peak by a tenth, for 50 ms at first and an
// 800th of the time; and when it may exceed it by a 100th but no longer grows, for 500 ms at first
// and a 200th of the time.  How much it may have grown since follows from the copies and from each
// process's resident memory, which is cheap to read: for 20 ms at first and a 400th of the time.
class TreeMemoryMeter {
 public:
  // Reads the memory of the tree if it is time to.
  void sample(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  // The next sample() reads it.
  void make_due() { is_wanted_ = true; }
  // nullopt: not sampled yet, or none could be read.
  const std::optional<TreeMemory>& memory() const { return memory_; }

 private:
  // What is known of a process since the tree's memory was read.
  struct Known {
    std::uint64_t counts = 0;  // when its resident memory was read
    std::uint64_t resident_bytes = 0;
    std::uint64_t resident_then = 0;
    std::uint64_t copied_then = 0;
    bool was_alive = false;
  };

  void look_at(const ProcFiles& proc, const TreeProcess& process, Known& known);
  void note_growth(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  bool is_due();
  void read(const ProcFiles& proc, const std::vector<TreeProcess>& tree);

  static constexpr std::uint64_t kReadsShare = 400;
  static constexpr std::uint64_t kLeastPauseNs = 100'000'000;
  static constexpr std::uint64_t kUnchangedNs = 5'000'000'000;
  static constexpr std::uint64_t kPeaksShare = 800;
  static constexpr std::uint64_t kFirstPeaksNs = 50'000'000;
  static constexpr std::uint64_t kRestsShare = 200;
  static constexpr std::uint64_t kFirstRestsNs = 500'000'000;
  static constexpr std::uint64_t kRestNs = 50'000'000;
  static constexpr std::uint64_t kLooksShare = 400;
  static constexpr std::uint64_t kFirstLooksNs = 20'000'000;

  internal::DutyCycle pace_{kReadsShare, kLeastPauseNs};
  internal::TokenBucket peaks_{kPeaksShare, kFirstPeaksNs};
  internal::TokenBucket rests_{kRestsShare, kFirstRestsNs};
  internal::TokenBucket looks_{kLooksShare, kFirstLooksNs};
  bool is_wanted_ = false;
  bool is_another_tree_ = true;  // than at the last read
  std::uint64_t last_ns_ = 0;
  // Since the last read, by the processes that are alive; nullopt: not known.
  std::optional<std::uint64_t> grown_;
  std::uint64_t rests_since_ns_ = 0;
  std::uint64_t grown_then_ = 0;
  std::map<std::uint64_t, Known> known_;
  std::optional<TreeMemory> memory_;
};

}  // namespace cowshed::cow
