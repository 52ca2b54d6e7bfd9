#pragma once

#include <cstdint>
#include <regex>
#include <set>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/backend.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cowtop {

// Which running processes to measure.  Their descendants always are, too.
struct Selection {
  enum class By : std::uint8_t {
    pid,
    cgroup,      // all of a cgroup, and of those below it
    comm,        // all with such a name
    everything,  // root: all of the machine; else the user's own
  };
  By by = By::everything;
  std::vector<pid_t> pids;
  std::string argument;  // path of the cgroup, or regular expression

  std::string text() const;  // as on the command line: "-p 1,2"
};

// Finds the processes of a selection and has a backend measure them: never cowtop itself, no kernel
// thread, and nobody who descends from one of them as a second root.
class SelectedProcesses {
 public:
  // Errors: invalid_argument: not a regular expression; system_call: no such cgroup.
  static Expected<SelectedProcesses> open(Selection selection,
                                          cow::ProcFiles proc = cow::ProcFiles());

  // Those there are now.  Errors: no_such_process: none was found; where none could be attached to,
  // why; system_call.
  Expected<cow::Attached> attach(cow::Backend& backend);

  // Whether processes that start later belong to it, other than descendants.
  bool grows() const { return selection_.by != Selection::By::pid; }
  // Those that have come since, at most once a second and for at most a 400th of a CPU's time.
  // Nobody who is refused is asked for again.
  Expected<cow::Attached> attach_new(cow::Backend& backend);

 private:
  SelectedProcesses(Selection selection, cow::ProcFiles proc);
  std::vector<pid_t> candidates() const;
  bool is_selected(pid_t pid, const cow::ProcStat& stat) const;
  Expected<cow::Attached> attach_found(cow::Backend& backend);

  Selection selection_;
  cow::ProcFiles proc_;
  std::string cgroup_;  // its folder
  std::regex comm_;
  std::set<pid_t> passed_over_;
  DutyCycle searches_;
};

// What was refused, in one line; empty: nothing.
std::string refused_line(const cow::Attached& attached);

}  // namespace cowshed::cowtop
