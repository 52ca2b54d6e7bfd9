#pragma once

#include <map>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tools/cowtop/live/model/columns.h>

namespace cowshed::cowtop::live {

// RSS of all, so that who has most is found by it.  PSS, of those on the screen, costs a walk
// through all of a process's pages: each is read when its turn has come, for at most a hundredth of
// the time.
class MemoryReader {
 public:
  struct Wanted {
    bool rss = false;
    bool pss = false;
  };
  // `running` are alive, `on_screen` are some of them.  What was read of others is forgotten.
  std::map<ProcessId, MemoryUse> read(const std::vector<ProcessId>& running,
                                      const std::vector<ProcessId>& on_screen, Wanted wanted);

 private:
  void read_pss(ProcessId process, MemoryUse& use) const;

  cow::ProcFiles proc_;
  std::map<ProcessId, MemoryUse> known_;
  DutyCycle pace_{99};
};

}  // namespace cowshed::cowtop::live
