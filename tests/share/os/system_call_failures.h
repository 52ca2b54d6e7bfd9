#pragma once

#include <cowshed/tests/support/test.h>

namespace cowshed::test {

struct SystemCall {
  long number;
  std::array<std::uint64_t, 6> arguments;
};

// What becomes of a call: 0 lets it go on, an errno makes it fail with that.  Runs in a thread of
// its own while the caller waits in the kernel, perhaps with malloc's locks held: it must not
// allocate.
using Verdict = std::function<int(const SystemCall&)>;

// From here on the verdict decides about every call of this thread, and of what it forks, that the
// arena makes: memfd_create, mmap, madvise, fcntl, ftruncate, fallocate, membarrier, openat and
// ioctl.  munmap and close go on: what they fail to release nobody can.  For the life of the
// process, so in a forked child.  Returns "" or why it cannot be.
std::string intercept_system_calls();

void decide_system_calls(Verdict verdict);  // null: all go on

// For messages: "madvise(25)".
std::string describe(const SystemCall& call);

}  // namespace cowshed::test
