#pragma once

#include <cstdint>
#include <string>

namespace cowshed::cow {

// Returns the name of an x86-64 system call: "pread64" for 17.  Empty if the headers of the build
// do not have it.
std::string system_call_name(std::uint64_t number);

}  // namespace cowshed::cow
