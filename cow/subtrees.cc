#include <map>

#include <cowshed/cow/subtrees.h>

namespace cowshed::cow {

std::vector<Subtree> subtrees(const std::vector<ProcessCopies>& processes) {
  std::vector<Subtree> result(processes.size());
  std::vector<std::size_t> parents(processes.size());
  std::map<pid_t, std::size_t> latest;  // of each PID, up to here
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const auto parent = latest.find(processes[i].ppid);
    const bool is_root = processes[i].role == Role::root;
    parents[i] = is_root ? i : parent == latest.end() ? 0 : parent->second;
    latest[processes[i].pid] = i;
    result[i].copied_pages = processes[i].copied_pages();
  }
  // Children come after their parents.
  for (std::size_t i = processes.size(); i-- > 0;) {
    if (parents[i] == i) continue;
    Subtree& above = result[parents[i]];
    above.processes += result[i].processes;
    if (!result[i].copied_pages) continue;
    above.copied_pages = above.copied_pages.value_or(0) + *result[i].copied_pages;
  }
  return result;
}

}  // namespace cowshed::cow
