#include <map>
#include <set>

#include <cowshed/cow/roots.h>

namespace cowshed::cow {

Roots roots_among(const std::vector<pid_t>& pids, const ProcFiles& proc, pid_t caller,
                  const std::function<bool(pid_t)>& is_measured) {
  const std::set<pid_t> all(pids.begin(), pids.end());
  std::map<pid_t, pid_t> parents;  // as far as looked up: siblings share their ancestors
  const auto parent_of = [&](pid_t pid) {
    const auto [known, is_new] = parents.try_emplace(pid, 0);
    if (is_new) {
      if (const auto stat = proc.stat(pid)) known->second = stat->ppid;
    }
    return known->second;
  };
  Roots result;
  std::set<pid_t> measured;
  for (const pid_t pid : all) {
    if (is_measured(pid)) continue;
    // Parents may change while we look, so that the way up could be a circle.
    std::set<pid_t> below = {pid};
    pid_t above = parent_of(pid);
    while (above > 0 && above != caller && below.insert(above).second && !all.contains(above) &&
           !is_measured(above)) {
      above = parent_of(above);
    }
    if (above > 0 && is_measured(above)) {
      measured.insert(above);
    } else if (above == pid || !all.contains(above)) {
      result.roots.push_back(pid);
    }
  }
  result.measured.assign(measured.begin(), measured.end());
  return result;
}

}  // namespace cowshed::cow
