#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

// How much memory a process can still get.
namespace cowshed::internal {

// The memory cgroups, v1 or v2, that a process is charged to: its own and all above it.
class MemoryLimits {
 public:
  static constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

  // Finds the groups.  Without any that it can read, nothing is limited.  `process` is the folder
  // with the process's `cgroup` and `mountinfo`.
  static MemoryLimits of_this_process(const std::string& process = "/proc/self") {
    return of_process(process, process);
  }
  // The same for another process.  Its groups are looked up by the `mountinfo` in `mounts`, the
  // caller's, because its own may show them at other places.
  static MemoryLimits of_process(const std::string& process,
                                 const std::string& mounts = "/proc/self");

  // Returns how many bytes can be charged before a limit is met.  Counts clean page cache as free,
  // and no swap.  Beyond the limit the kernel kills instead of returning ENOMEM.  Allocates
  // nothing.
  std::size_t headroom() const noexcept;

 private:
  struct Group {
    std::string limit, usage, stat;  // paths
    bool v1;
  };
  std::vector<Group> groups_;
};

// Returns how many bytes the machine has left, including swap.  The kernel grants more than that,
// and kills processes that use it.  Unlimited if /proc does not tell.
std::size_t available_memory() noexcept;

}  // namespace cowshed::internal
