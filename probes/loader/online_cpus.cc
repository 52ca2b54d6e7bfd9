#include <fstream>

#include <cowshed/probes/loader/online_cpus.h>

namespace cowshed {

std::vector<int> online_cpus(const std::filesystem::path& root) {
  std::vector<int> cpus;
  std::ifstream file(root / "sys/devices/system/cpu/online");  // such as 0-3,5
  int first = 0;
  while (file >> first) {
    int last = first;
    if (file.peek() == '-') {
      file.get();
      file >> last;
    }
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (file.peek() == ',') file.get();
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

}  // namespace cowshed
