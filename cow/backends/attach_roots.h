#pragma once

#include <functional>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// What is to be measured of some processes, when all that descends from it is, too.
struct Roots {
  // Those that descend from no other of them, nor from what is measured.  Also what is not there.
  std::vector<pid_t> roots;
  // Measured ones from which others of them descend.
  std::vector<pid_t> measured;
};

// `pids` may be in any order, and name a process twice.  The descendants of `caller` are measured
// only where it or they are named: they are roots though they also descend from one above it.
Roots roots_among(const std::vector<pid_t>& pids, const ProcFiles& proc, pid_t caller,
                  const std::function<bool(pid_t)>& is_measured);

// Attaches to the roots among `pids`.  `attach` returns the processes that are refused; then it is
// tried again without them, because their descendants may be among `pids`.  Errors: as
// Backend::attach().
using Refused = std::vector<std::pair<pid_t, Error>>;
Expected<std::vector<Error>> attach_roots(
    const std::vector<pid_t>& pids, const ProcFiles& proc,
    const std::function<bool(pid_t)>& is_measured,
    const std::function<Expected<Refused>(const Roots& found)>& attach);

}  // namespace cowshed::cow
