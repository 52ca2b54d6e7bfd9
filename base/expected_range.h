#pragma once

#include <ranges>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>

namespace cowshed {

// An Expected whose range a loop may go over at once.  value() of a temporary tl::expected is a
// reference, and the loop destroys the temporary before its first step; here value() returns the
// range, and the loop keeps it alive.
//
//   for (const auto& end : workers.wait().value()) { ... }
template <class T>
class ExpectedRange : public Expected<T> {
  using Base = Expected<T>;

 public:
  using Base::Base;
  ExpectedRange(Base base) : Base(std::move(base)) {}

  T& value() & { return Base::value(); }
  const T& value() const& { return Base::value(); }
  T value() && { return static_cast<Base&&>(*this).value(); }

  T& operator*() & { return Base::operator*(); }
  const T& operator*() const& { return Base::operator*(); }
  T operator*() && { return *static_cast<Base&&>(*this); }
};

// Of a type that may be a range or not.
template <class T>
using ExpectedValue = std::conditional_t<std::ranges::range<T>, ExpectedRange<T>, Expected<T>>;

}  // namespace cowshed
