#pragma once

#include <cstddef>

namespace cowshed::test {

// How many descriptors this process has open.
std::size_t open_descriptors();

}  // namespace cowshed::test
