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
  // So far: of pages that a fork shared.  nullopt: not counted.
  std::optional<std::uint64_t> copied_bytes = std::nullopt;
  // New memory of its own by write faults, shared memory and first writes to files included.
  std::uint64_t filled_bytes = 0;
  bool are_all_faults = false;  // `copied_bytes` has a page for each fault, also of new memory
  std::optional<MemoryPeak>* peak = nullptr;  // raised to its PSS where that is read
  std::optional<PssSample>* pss = nullptr;    // set there
  std::uint64_t start_ns = 0;                 // no growth before
  std::uint64_t end_ns = 0;
  std::uint64_t forked_ns = 0;
  std::uint64_t parent_id = 0;          // of the process that forked it
  std::uint64_t got_at_fork_bytes = 0;  // anonymous memory; 0 also if that is not known
  // The most that it held at one time, as the kernel says at its end; 0: not known.
  std::uint64_t most_resident_bytes = 0;
  // What the tree held at some time at least.
  std::uint64_t least_peak_bytes = 0;
  // The most that its anonymous memory rose above an earlier value.
  std::uint64_t risen_bytes = 0;
  // The anonymous memory that it got at its fork, or 0 by its last exec; nullopt: not known.
  std::optional<std::uint64_t> got_bytes = std::nullopt;
  std::uint64_t execs = 0;
};

// Sums the memory of a process tree (PSS), for at most an 800th of one CPU's time: every 100 ms
// while it changes, else every 5 s; when it may exceed its peak by a tenth; and when it may exceed
// it by a 100th but no longer grows.  How much it may have grown since follows from the copies and
// from each process's resident memory, which is cheap to read: for a 1,000th of the time.  Growth
// that was never read makes the peak a range, and so does a child that was forked before the sum
// ended and is not in it: the sum lacks its share of its parent's pages.  The sum of a tree that
// costs more than is left is taken over several samples.  It begins with the processes that were
// never read.  Those that come later are read once beside it, for another 1,000th of the time.
//
// The sum has pages of memfds that nobody maps, or that a private mapping has replaced: what the
// memfds hold, as far as it is more than all shared memory in the PSS.
//
// A process's pages of files, and its shared memory, are no growth as far as they are no more than
// another process had: both probably map the same.
class TreeMemoryMeter {
 public:
  // Allows 100 ms, and 20 ms for resident memory, at first: a measurement may be short.
  void begin();
  // Reads the memory of the tree if it is time to.
  void sample(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  // The next sample() reads it.
  void make_due() { is_wanted_ = true; }
  // nullopt: not sampled yet, or none could be read.
  const std::optional<TreeMemory>& memory() const { return memory_; }

 private:
  struct State {
    std::uint64_t anonymous_bytes = 0;  // resident, as the next two
    std::uint64_t shared_bytes = 0;     // of memfds, MAP_SHARED and the like
    std::uint64_t file_bytes = 0;
    std::uint64_t most_resident_bytes = 0;
    std::uint64_t copied_bytes = 0;
    std::uint64_t filled_bytes = 0;
    std::uint64_t risen_bytes = 0;
    // From when to when its PSS was read, 0 if the sum lacks it; the anonymous part, and what that
    // leaves to others of what is resident.
    std::uint64_t summed_from_ns = 0;
    std::uint64_t summed_ns = 0;
    std::uint64_t pss_bytes = 0;
    std::uint64_t lent_bytes = 0;

    std::uint64_t resident_bytes() const { return anonymous_bytes + shared_bytes + file_bytes; }
    void set_counts(const TreeProcess& process) {
      copied_bytes = *process.copied_bytes;
      filled_bytes = process.filled_bytes;
      risen_bytes = process.risen_bytes;
    }
  };
  struct Known {
    State now;   // its counts when its resident memory was read
    State then;  // when the last sum of the tree was taken
    State next;  // for the next sum
    std::uint64_t execs = 0;
    std::uint64_t read_ns = 0;
    bool was_alive = false;
    bool is_read = false;     // its resident memory
    bool is_noticed = false;  // as a new process
  };

  void note(const TreeProcess& process, const std::vector<std::uint64_t>& kib, Known& known);
  void look_at(const ProcFiles& proc, const TreeProcess& process, Known& known);
  struct Growth {
    std::uint64_t now = 0;
    std::uint64_t most = 0;    // in between
    std::uint64_t lacked = 0;  // by the last sum
  };
  std::uint64_t lacked_of(const TreeProcess& process, const Known& known) const;
  Growth added_by(const TreeProcess& process, const Known& known) const;
  std::optional<Growth> growth_of(const ProcFiles& proc, const TreeProcess& process);
  void note_growth(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  bool is_due();
  void begin_sum(const std::vector<TreeProcess>& tree);
  void read(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  void read_new(const ProcFiles& proc, const std::vector<TreeProcess>& tree);
  void read(const ProcFiles& proc, const TreeProcess& process);
  void finish();

  static constexpr std::uint64_t kPaceShare = 800;
  static constexpr std::uint64_t kLeastPauseNs = 100'000'000;
  static constexpr std::uint64_t kUnchangedNs = 5'000'000'000;
  static constexpr std::uint64_t kRestNs = 50'000'000;
  static constexpr std::uint64_t kReadsShare = 800;
  static constexpr std::uint64_t kLooksShare = 1000;
  static constexpr std::uint64_t kMostSavedNs = 5'000'000;

  internal::DutyCycle pace_{kPaceShare, kLeastPauseNs};
  internal::TokenBucket reads_{kReadsShare, kMostSavedNs, 1};
  internal::TokenBucket looks_{kLooksShare, kMostSavedNs, 1};
  internal::TokenBucket new_reads_{kLooksShare, kMostSavedNs, 1};
  // The sum that is being taken, its cost, and the processes that it lacks.
  TreeMemory sum_;
  ProcFiles::Memfds memfds_;
  std::uint64_t took_ns_ = 0;
  std::set<std::uint64_t> unread_;
  std::uint64_t ended_unread_bytes_ = 0;  // the most that it lacks of those
  bool is_wanted_ = false;
  bool is_another_tree_ = true;  // than at the last read
  std::uint64_t last_ns_ = 0;
  // Since the last read, by the processes that are alive; nullopt: not known.
  std::optional<std::uint64_t> grown_;
  std::uint64_t rests_since_ns_ = 0;
  std::uint64_t grown_then_ = 0;
  std::uint64_t newest_ = 0;        // the greatest ID so far
  std::uint64_t unsure_bytes_ = 0;  // the most by which the last sum is too low
  std::uint64_t most_mapped_ = 0;   // of files and shared memory, by one process
  std::map<std::uint64_t, Known> known_;
  std::optional<TreeMemory> memory_;
};

}  // namespace cowshed::cow
