#pragma once

#include <compare>
#include <cstddef>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace cowshed {

// Replaces std::shared_ptr for objects in a frozen arena.  The objects exist as long as the arena,
// so nothing is counted, and a copy writes to no shared page.  A std::shared_ptr writes to its
// control block, beside the object, on every copy.
template <class T>
class ImmortalPtr {
 public:
  using element_type = T;

  constexpr ImmortalPtr() noexcept = default;
  constexpr ImmortalPtr(std::nullptr_t) noexcept {}
  // The caller ensures that the arena outlives all copies.
  constexpr explicit ImmortalPtr(T* object) noexcept : object_(object) {}
  template <class Other>
    requires std::is_convertible_v<Other*, T*>
  constexpr ImmortalPtr(const ImmortalPtr<Other>& other) noexcept : object_(other.get()) {}

  constexpr T* get() const noexcept { return object_; }
  constexpr std::add_lvalue_reference_t<T> operator*() const noexcept { return *object_; }
  constexpr T* operator->() const noexcept { return object_; }
  constexpr explicit operator bool() const noexcept { return object_ != nullptr; }
  constexpr void reset() noexcept { object_ = nullptr; }
  constexpr void swap(ImmortalPtr& other) noexcept { std::swap(object_, other.object_); }

  // For interfaces that take a std::shared_ptr.  It owns nothing, so it has no count either.
  template <class Other>
    requires std::is_convertible_v<T*, Other*>
  operator std::shared_ptr<Other>() const noexcept {
    return std::shared_ptr<Other>(std::shared_ptr<void>{}, object_);
  }

  auto operator<=>(const ImmortalPtr&) const = default;

 private:
  T* object_ = nullptr;
};

template <class T, class Other>
constexpr ImmortalPtr<T> static_pointer_cast(const ImmortalPtr<Other>& pointer) noexcept {
  return ImmortalPtr<T>(static_cast<T*>(pointer.get()));
}
template <class T, class Other>
constexpr ImmortalPtr<T> dynamic_pointer_cast(const ImmortalPtr<Other>& pointer) noexcept {
  return ImmortalPtr<T>(dynamic_cast<T*>(pointer.get()));
}
template <class T, class Other>
constexpr ImmortalPtr<T> const_pointer_cast(const ImmortalPtr<Other>& pointer) noexcept {
  return ImmortalPtr<T>(const_cast<T*>(pointer.get()));
}

}  // namespace cowshed

template <class T>
struct std::hash<cowshed::ImmortalPtr<T>> {
  std::size_t operator()(const cowshed::ImmortalPtr<T>& pointer) const noexcept {
    return std::hash<T*>{}(pointer.get());
  }
};
