#pragma once

#include <cstdint>
#include <string>

namespace cowshed::cow {

// Returns the name of a system call, by its number in CopySample: "pread64" for 17.  Empty if the
// headers of the build do not have it.
std::string system_call_name(std::uint64_t number);

}  // namespace cowshed::cow
