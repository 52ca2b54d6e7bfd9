#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <regex>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/backend.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cowtop {

// The running processes to measure, without their descendants, which are always measured.
struct Selection {
  enum class By : std::uint8_t {
    pid,
    cgroup,      // all of a cgroup and of its descendants, or of a container or a pod
    comm,        // all with a matching name
    everything,  // for root all processes; else the user's own
  };
  By by = By::everything;
  std::vector<pid_t> pids;
  std::string argument;  // path of the cgroup, or container's or pod's ID; regular expression

  std::string text() const;  // as on the command line: "-p 1,2"
};

// Finds the processes of a selection and attaches a backend to them.  It excludes cowtop and kernel
// threads.  A descendant of a selected process does not become a root.
class SelectedProcesses {
 public:
  // Errors: invalid_argument for a wrong regular expression; system_call if there is no such
  // cgroup.
  static Expected<SelectedProcesses> open(Selection selection,
                                          cow::ProcFiles proc = cow::ProcFiles());

  // Attaches to the processes that exist now.  Errors: no_such_process if there is none; the error
  // of the first process if all are refused; system_call.
  Expected<cow::Attached> attach(cow::Backend& backend);

  // Returns the processes that exist now, and attaches to none; adds what is wrong with those that
  // were named.
  std::vector<pid_t> processes(std::vector<Error>& refused) const;

  // Whether processes that start later may belong to it, beside descendants.
  bool grows() const { return selection_.by != Selection::By::pid; }
  // Attaches to new processes, at most once a second and with at most a 400th of a CPU.  It does
  // not try a refused process again.
  Expected<cow::Attached> attach_new(cow::Backend& backend);

 private:
  SelectedProcesses(Selection selection, cow::ProcFiles proc);
  std::vector<pid_t> candidates() const;
  bool is_selected(pid_t pid, const cow::ProcStat& stat) const;
  struct Found {
    std::vector<pid_t> wanted;
    std::vector<Error> refused;
    std::map<pid_t, std::uint64_t> starts;
    std::map<pid_t, std::uint64_t> passed_over;
  };
  Found find(const std::function<bool(pid_t)>& is_measured) const;
  Expected<cow::Attached> attach_found(cow::Backend& backend);
  // For none.
  Error no_process() const;

  Selection selection_;
  cow::ProcFiles proc_;
  std::string cgroup_;  // the folder; empty: none, or a container or a pod
  std::regex comm_;
  std::map<pid_t, std::uint64_t> passed_over_;  // with the start: a PID is used again
  internal::DutyCycle searches_;
};

// Returns one line about the refused processes; empty: none.
std::string refused_line(const cow::Attached& attached);

}  // namespace cowshed::cowtop
