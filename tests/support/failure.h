#pragma once

#include <stdexcept>

#include <cowshed/base/error.h>

namespace cowshed {

// The error where there must be one; value(), the other way round, throws the error's message.
template <class T>
Error failure_of(const Expected<T>& result) {
  if (result) throw std::logic_error("there is a value where there should be an error");
  return result.error();
}

}  // namespace cowshed
