#pragma once

#include <cstdint>

namespace cowshed::internal {

// Returns a hash of the build IDs and addresses of the program and its loaded libraries.  Two
// processes with the same hash have the same code and constants at the same addresses.
std::uint64_t code_id();

}  // namespace cowshed::internal
