#pragma once

#include <string>
#include <vector>

// Whether the kernel and a sandbox around this process let the library work.
namespace cowshed {

struct RefusedCall {
  std::string call;         // "membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)"
  int error = 0;            // its errno
  std::string consequence;  // "channels cannot be used"
};

// Makes each system call that the library depends on once, without an effect that lasts, and
// returns those that fail: an old kernel, a seccomp filter of a container runtime, no /proc. Empty:
// all work.  It starts no process: whether fork and exec are allowed only start() can tell.  Takes
// about a millisecond.  Thread-safe; no errors; any process may call it, also a forked one.
//
//   for (const auto& refused : cowshed::check_environment()) {
//     std::cerr << refused.call << ": " << refused.consequence << '\n';
//   }
std::vector<RefusedCall> check_environment();

}  // namespace cowshed
