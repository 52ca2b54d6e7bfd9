#pragma once

#include <cstddef>
#include <string>

namespace cowshed::bench {

// A list of made-up packages as `apt-get update` leaves one, the same on every machine.
std::string make_package_list(std::size_t records);

}  // namespace cowshed::bench
