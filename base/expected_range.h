#pragma once

#include <ranges>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>

namespace cowshed {

// An Expected with a range that a loop may go over at once.  The value() of a temporary is the
// range itself, which the loop keeps alive; that of a tl::expected is a reference into what the
// loop has destroyed before its first step.
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
