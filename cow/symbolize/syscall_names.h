#pragma once

#include <cstdint>
#include <string>

namespace cowshed::cow {

// "pread64" for 17: x86-64's system call of that number as of the headers that this was built
// with.  Empty for one that they do not know.
std::string system_call_name(std::uint64_t number);

}  // namespace cowshed::cow
