#pragma once

#include <functional>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// The processes to attach to, so that their descendants are measured, too.
struct Roots {
  // Processes that descend from no other, nor from a measured process.  Includes missing processes.
  std::vector<pid_t> roots;
  // Measured processes from which others descend.
  std::vector<pid_t> measured;
};

// Finds the roots among `pids`, which may be unordered and have duplicates.  `caller` and its
// descendants are roots if they are named, even below another root.
Roots roots_among(const std::vector<pid_t>& pids, const ProcFiles& proc, pid_t caller,
                  const std::function<bool(pid_t)>& is_measured);

// Attaches to the roots among `pids`.  `attach` returns refused processes.  It is called again
// without them, because their descendants may be among `pids`.  Errors: as Backend::attach().
using Refused = std::vector<std::pair<pid_t, Error>>;
Expected<std::vector<Error>> attach_roots(
    const std::vector<pid_t>& pids, const ProcFiles& proc,
    const std::function<bool(pid_t)>& is_measured,
    const std::function<Expected<Refused>(const Roots& found)>& attach);

}  // namespace cowshed::cow
