#pragma once

#include <cstdint>
#include <optional>

// As a container's seccomp filter does: from here on such calls of this process, and of what it
// starts, fail.  Needs CAP_SYS_ADMIN, or PR_SET_NO_NEW_PRIVS, which takes setpriv's means away.
// Ends the process with status 124 where it cannot.
namespace cowshed::test {

void refuse_call(long number);  // with EPERM
// An ioctl(2) of this request.
void refuse_request(unsigned long request);

// Only where the argument of that index has this value.
struct Argument {
  unsigned index;
  std::uint32_t value;
};
void refuse_call(long number, std::optional<Argument> where, int error);

// This process becomes root of a user namespace of its own, with all its capabilities.  Ends with
// status 124 where it cannot.
void enter_user_namespace();

}  // namespace cowshed::test
