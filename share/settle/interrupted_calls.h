#pragma once

#include <optional>

#include <cowshed/base/arch/arch.h>

// A signal's handler makes some system calls fail with EINTR, even with SA_RESTART.  The program
// does not expect that of a signal that it knows nothing of.
namespace cowshed::settling {

// The call in which this process's thread `name` waits, if it waits in one.  `tasks` is a
// descriptor of /proc/self/task.  Allocates nothing.
std::optional<arch::SystemCall> call_of(int tasks, const char* name) noexcept;

// How a thread goes on waiting.  None where the call does not say how much of its time limit is
// left: a poll() or epoll_wait() with one fails with EINTR.
std::optional<arch::SystemCall> rest_of(arch::SystemCall call) noexcept;

}  // namespace cowshed::settling
