#pragma once

namespace cowshed::cow {

// From here on this thread can compute, use memory, read the descriptors that it has or is sent,
// and answer.  Every other system call fails with EPERM.  Needs no_new_privs.
bool filter_system_calls();

}  // namespace cowshed::cow
