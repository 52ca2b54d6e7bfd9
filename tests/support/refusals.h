#pragma once

namespace cowshed::test {

// As a container's seccomp filter does: from here on such calls of this process, and of what it
// starts, fail with EPERM.  Needs CAP_SYS_ADMIN (without PR_SET_NO_NEW_PRIVS, which would take
// setpriv's means away).  Ends the process with status 124 where it cannot.
void refuse_call(long number);
// An ioctl(2) of this request.
void refuse_request(unsigned long request);

// This process becomes root of a user namespace of its own, with all its capabilities.  Ends with
// status 124 where it cannot.
void enter_user_namespace();

}  // namespace cowshed::test
