#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <cowshed/cow/pace.h>
#include <cowshed/cow/page_diff.h>
#include <cowshed/cow/page_frames.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc_files.h>
#include <cowshed/cow/process_copies.h>

namespace cowshed::cow {

// Compares what the processes of a tree have copied with what others of it still have as it was
// (page_diff.h says how, and what is assumed): a child's copies of what its parent shared with it,
// and the parent's own, where it wrote first and a child has the original.  Who copied is known by
// the frames of memory (page_frames.h).  Without CAP_SYS_ADMIN they are hidden: then all that both
// have, each its own, is taken for the child's copies, and a parent has none of its own.
//
// A process is known from when it was first seen: what it or its parent had copied until then is
// taken for the child's.  Memory that it dropped and touched anew at the same address looks copied.
// A parent's copy is compared with one child: the last that has the original.
//
// Two ways to drive it, for each process one of them.  sample() compares at intervals, again after
// 5 times what it cost, so that a CPU is kept busy for at most a sixth for each process.  Or
// somebody stops the process at its start and its exit (exit_stops.h) and says so here.
//
// Works with every backend, needs ptrace permission.  Not thread-safe.
class CopyDiffs {
 public:
  // `asked_for`: when the comparisons are meant to be taken, as Measurement::diffs says.
  explicit CopyDiffs(pid_t root, CopyDiff::Taken asked_for = CopyDiff::Taken::at_interval,
                     ProcFiles proc = ProcFiles());

  // Finds new processes, and compares those whose turn it is.
  void sample();

  // Finds new processes.
  void find_children();
  // All known that have not ended.
  std::vector<pid_t> alive() const;

  // From now on exiting() or ended() will be called for it: not compared at intervals any more.
  void follow(pid_t pid);
  // A child that has not run yet: what `parent` shared with it is what it has.  Followed.
  void started(pid_t pid, pid_t parent);
  // Has replaced its memory.
  void executed(pid_t pid);
  // About to exit, and stopped.  Its memory is read through `task`, one of its threads: the first
  // may have ended long ago.
  void exiting(pid_t pid, pid_t task);
  // Has ended, and exiting() was not called.
  void ended(pid_t pid);
  // Compares all that have not ended, whatever it costs.
  void compare_alive();

  // Sets the newest comparison of each process of `measurement`, and that copies were compared.
  void add_to(Measurement& measurement) const;

 private:
  static constexpr std::uint64_t kCostFactor = 5;

  struct Known {
    std::uint64_t start_ticks = 0;
    std::uint64_t start_stack = 0;  // another one: it has executed another program
    pid_t parent = 0;               // 0: the root
    std::uint64_t parent_ticks = 0;
    bool shares = false;  // what it inherited; not a root, nor what has executed another program
    pid_t task = 0;       // whose files in /proc show its memory
    PageFrames inherited;
    bool is_followed = false;
    bool parent_has_image = true;  // the parent still has the memory that it shared
    CopyDiff::Taken taken = CopyDiff::Taken::at_interval;
    std::optional<PageComparison> own;      // its copies
    std::optional<PageComparison> parents;  // its parent's, of which it has the originals
    Pace comparisons{kCostFactor};
  };
  using Entry = std::map<pid_t, Known>::value_type;

  void add(pid_t pid, const ProcStat& stat, pid_t parent);
  bool is_running(pid_t pid, Known& known);
  void forget_image(pid_t pid, Known& known);
  std::map<pid_t, Known>::iterator end(std::map<pid_t, Known>::iterator entry);
  const Known* parent_of(const Known& known) const;
  static bool are_siblings(const Known& left, const Known& right);

  void compare(Entry& entry);
  void compare_own(Entry& entry) const;
  void compare_parents(Entry& entry) const;

  CopyDiff::Taken asked_for_;
  ProcFiles proc_;
  std::map<pid_t, Known> alive_;
  std::vector<std::pair<pid_t, Known>> ended_;
};

}  // namespace cowshed::cow
