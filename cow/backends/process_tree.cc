#include <algorithm>
#include <map>

#include <cowshed/cow/process_tree.h>

namespace cowshed::cow {

std::vector<std::size_t> parents(const std::vector<ProcessCopies>& processes) {
  std::vector<std::size_t> result(processes.size());
  std::map<pid_t, std::size_t> latest;  // of each PID, up to here
  const auto is_root = [](const ProcessCopies& process) { return process.role == Role::root; };
  const bool one_root = std::ranges::count_if(processes, is_root) == 1;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const auto parent = latest.find(processes[i].ppid);
    result[i] = i;
    if (!is_root(processes[i])) {
      if (parent != latest.end()) result[i] = parent->second;
      if (parent == latest.end() && one_root) result[i] = 0;
    }
    latest[processes[i].pid] = i;
  }
  return result;
}

}  // namespace cowshed::cow
