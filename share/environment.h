#pragma once

#include <string>
#include <vector>

// Finds out whether the kernel, and a sandbox around this process, let the library work.
namespace cowshed {

struct RefusedCall {
  std::string call;         // "membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)"
  int error = 0;            // an errno
  std::string consequence;  // "channels cannot be used"
};

// Tries each system call that the library needs, without a lasting effect, and returns those that
// fail: because of an old kernel, a container's seccomp filter, or a missing /proc.  Returns {} if
// all work.  Starts no process, so only start() finds out whether fork and exec are allowed.  Takes
// about a millisecond.  Thread-safe; works in any process; never fails.
//
//   for (const auto& refused : cowshed::check_environment()) {
//     std::cerr << refused.call << ": " << refused.consequence << '\n';
//   }
std::vector<RefusedCall> check_environment();

}  // namespace cowshed
