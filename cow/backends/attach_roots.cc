#include <map>
#include <set>
#include <unistd.h>

#include <cowshed/base/try.h>
#include <cowshed/cow/backends/attach_roots.h>

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
    // Parents may change meanwhile, so that the path upwards could be a circle.
    std::set<pid_t> below = {pid};
    pid_t above = parent_of(pid);
    while (above > 0 && above != caller && below.insert(above).second && !all.contains(above) &&
           !is_measured(above)) {
      above = parent_of(above);
    }
    if (above > 0 && is_measured(above)) measured.insert(above);
    else if (above == pid || !all.contains(above)) result.roots.push_back(pid);
  }
  result.measured.assign(measured.begin(), measured.end());
  return result;
}

Expected<std::vector<Error>> attach_roots(
    const std::vector<pid_t>& pids, const ProcFiles& proc,
    const std::function<bool(pid_t)>& is_measured,
    const std::function<Expected<Refused>(const Roots& found)>& attach) {
  std::set<pid_t> wanted(pids.begin(), pids.end());
  std::vector<Error> errors;
  bool any_attached = false;
  for (bool is_done = false; !is_done;) {
    const Roots found = roots_among({wanted.begin(), wanted.end()}, proc, ::getpid(), is_measured);
    if (found.roots.empty() && found.measured.empty()) break;
    TRY(const auto refused, attach(found));
    if (refused.size() < found.roots.size()) any_attached = true;
    for (const auto& [pid, error] : refused) {
      errors.push_back(error);
      wanted.erase(pid);
    }
    is_done = refused.empty();
  }
  if (!any_attached && !errors.empty()) return tl::make_unexpected(errors.front());
  return errors;
}

}  // namespace cowshed::cow
