#pragma once

#include <map>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tools/cowtop/live/model/columns.h>

namespace cowshed::cowtop::live {

// Reads RSS of all processes, so that the view can sort by it, and PSS of those on the screen.  PSS
// costs a walk through all pages of a process, so they take turns, for at most 1 % of the time.
class MemoryReader {
 public:
  struct Wanted {
    bool rss = false;
    bool pss = false;
  };
  // Returns the memory of the `running` processes.  `on_screen` is a part of them.
  std::map<ProcessId, MemoryUse> read(const std::vector<ProcessId>& running,
                                      const std::vector<ProcessId>& on_screen, Wanted wanted);

 private:
  cow::ProcFiles proc_;
  std::map<ProcessId, MemoryUse> known_;
  internal::DutyCycle pace_{100};
};

}  // namespace cowshed::cowtop::live
