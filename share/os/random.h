#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <sys/random.h>

#include <cowshed/base/error.h>

namespace cowshed::internal {

// Not std::random_device, whose arc4random() only glibc 2.36 has.
inline Expected<std::uint32_t> random_number(const std::string& for_what) {
  std::uint32_t number = 0;
  if (getrandom(&number, sizeof(number), 0) != sizeof(number))
    return system_error("getrandom for " + for_what, errno);
  return number;
}

}  // namespace cowshed::internal
