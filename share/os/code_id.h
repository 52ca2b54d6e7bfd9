#pragma once

#include <cstdint>

namespace cowshed {

// The program and the libraries that are loaded, by their build IDs, and where: two processes with
// the same have their code and constants at the same addresses.
std::uint64_t code_id();

}  // namespace cowshed
