#pragma once

#include <stdexcept>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>

namespace cowshed::bench {

// The value, or std::runtime_error.
template <class T>
T got(Expected<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace cowshed::bench
