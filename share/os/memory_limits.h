#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace cowshed {

// The memory cgroups, v1 or v2, that this process is charged to: its own and all above.
class MemoryLimits {
 public:
  static constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

  // Finds the groups; where there are none, or none can be read, nothing is limited.  `process` is
  // the folder with the process's `cgroup` and `mountinfo`.
  static MemoryLimits of_this_process(const std::string& process = "/proc/self");

  // How many bytes more can be charged before a limit is met, clean page cache counted as free and
  // swap as absent.  The kernel does not answer ENOMEM beyond it: it kills.  Allocates nothing.
  std::size_t headroom() const noexcept;

 private:
  struct Group {
    std::string limit, usage, stat;  // paths
    bool v1;
  };
  std::vector<Group> groups_;
};

// How many bytes the machine has for whoever asks next, swap included.  The kernel promises more
// than that, and kills when it is asked to keep its word.  Unlimited where /proc does not tell.
std::size_t available_memory() noexcept;

}  // namespace cowshed
