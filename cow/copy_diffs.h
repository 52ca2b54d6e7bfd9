#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc_files.h>
#include <cowshed/cow/process_copies.h>

namespace cowshed::cow {

// Compares what the descendants of a process have copied with what their parents and siblings still
// share, at intervals while they live (page_diff.h says how, and what is assumed).  What a process
// has copied is found in its pagemap: pages that its parent had when the process was first seen,
// and that both have now, each its own.  What the parent itself copies is not compared.
//
// Works with every backend, needs ptrace permission.  A process is compared again after 20 times
// what it cost, so that a CPU is kept busy for at most a sixth.  Not thread-safe.
class CopyDiffs {
 public:
  explicit CopyDiffs(pid_t root, ProcFiles proc = ProcFiles());

  // Finds new processes, and compares those whose turn it is.
  void sample();

  // Compares one process now, whatever it costs: before it exits, say.
  void compare(pid_t pid);

  // Sets the newest comparison of each process of `measurement`.
  void add_to(Measurement& measurement) const;

 private:
  struct Known {
    std::uint64_t start_ticks = 0;
    std::uint64_t start_stack = 0;  // another one: it has executed another program
    pid_t parent = 0;               // 0: the root, or shares nothing any more
    PageRanges inherited;
    std::optional<CopyDiff> diff;
    std::uint64_t next_ns = 0;
  };

  void add(pid_t pid, const ProcStat& stat, pid_t parent);
  void find_children();
  bool is_running(pid_t pid, Known& known) const;
  void compare(pid_t pid, Known& known);

  ProcFiles proc_;
  std::map<pid_t, Known> alive_;
  std::vector<std::pair<pid_t, Known>> ended_;
};

}  // namespace cowshed::cow
