#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
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
  bool are_all_faults = false;  // `copied_bytes` has a page for each fault, also of new memory
  std::optional<MemoryPeak>* peak = nullptr;  // raised to its PSS where that is read
  std::optional<PssSample>* pss = nullptr;    // set there
  std::uint64_t start_ns = 0;
  std::uint64_t end_ns = 0;
  // The most that it held at one time, as the kernel says at its end; 0: not known.
  std::uint64_t most_resident_bytes = 0;
  // What the tree held at some time at least.
  std::uint64_t least_peak_bytes = 0;
};

// Sums the memory of a process tree (PSS), for at most a 500th of one CPU's time: every 100 ms
// while it changes, else every 5 s; when it may exceed its peak by a tenth; and when it may exceed
// it by a 100th but no longer grows.  How much it may have grown since follows from the copies and
// from each process's resident memory, which is cheap to read: for a 1,000th of the time.  Growth
// that was never read makes the peak a range.  The sum of a tree that costs more than is left is
// taken over several samples.
class TreeMemoryMeter {
 public:
  // Allows 100 ms, and 20 ms for resident memory, at first: a command may be short.
  void expect_command();
  // Reads the memory of the tree if it is time to.
  void sample(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  // The next sample() reads it.
  void make_due() { is_wanted_ = true; }
  // nullopt: not sampled yet, or none could be read.
  const std::optional<TreeMemory>& memory() const { return memory_; }

 private:
  struct State {
    std::uint64_t anonymous_bytes = 0;  // resident, as the next
    std::uint64_t shared_bytes = 0;     // of memfds, MAP_SHARED and the like
    std::uint64_t resident_bytes = 0;   // all
    std::uint64_t most_resident_bytes = 0;
    std::uint64_t copied_bytes = 0;
    std::uint64_t zero_filled_bytes = 0;

    std::uint64_t file_bytes() const {
      return resident_bytes - std::min(resident_bytes, anonymous_bytes + shared_bytes);
    }
  };
  struct Known {
    State now;   // its counts when its resident memory was read
    State then;  // when the last sum of the tree was taken
    State next;  // for the next sum
    bool was_alive = false;
    bool is_read = false;  // its resident memory
  };

  static void note(const TreeProcess& process, const std::vector<std::uint64_t>& kib, Known& known);
  void look_at(const ProcFiles& proc, const TreeProcess& process, Known& known);
  struct Growth {
    std::uint64_t now = 0;
    std::uint64_t most = 0;  // in between
  };
  static Growth added_by(const TreeProcess& process, const Known& known);
  std::optional<Growth> growth_of(const ProcFiles& proc, const TreeProcess& process);
  void note_growth(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  bool is_due();
  void begin(const std::vector<TreeProcess>& tree);
  void read(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  void read(const ProcFiles& proc, const TreeProcess& process);
  void finish();

  static constexpr std::uint64_t kPaceShare = 800;
  static constexpr std::uint64_t kLeastPauseNs = 100'000'000;
  static constexpr std::uint64_t kUnchangedNs = 5'000'000'000;
  static constexpr std::uint64_t kRestNs = 50'000'000;
  static constexpr std::uint64_t kReadsShare = 500;
  static constexpr std::uint64_t kLooksShare = 1000;
  static constexpr std::uint64_t kMostSavedNs = 5'000'000;

  internal::DutyCycle pace_{kPaceShare, kLeastPauseNs};
  internal::TokenBucket reads_{kReadsShare, kMostSavedNs, 1};
  internal::TokenBucket looks_{kLooksShare, kMostSavedNs, 1};
  // The sum that is being taken, its cost, and the processes that it lacks.
  TreeMemory sum_;
  std::uint64_t took_ns_ = 0;
  std::set<std::uint64_t> unread_;
  bool is_wanted_ = false;
  bool is_another_tree_ = true;  // than at the last read
  std::uint64_t last_ns_ = 0;
  // Since the last read, by the processes that are alive; nullopt: not known.
  std::optional<std::uint64_t> grown_;
  std::uint64_t rests_since_ns_ = 0;
  std::uint64_t grown_then_ = 0;
  std::uint64_t newest_ = 0;  // the greatest ID so far
  std::map<std::uint64_t, Known> known_;
  std::optional<TreeMemory> memory_;
};

}  // namespace cowshed::cow
