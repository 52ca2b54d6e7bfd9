#pragma once

#include <memory>
#include <utility>

#include <cowshed/tools/search/tally.h>

namespace cowshed::search {

// A reference to a shared object, by the storage's own pointer; copies are counted.
template <class Pointer>
class Reference {
 public:
  using Element = typename Pointer::element_type;

  Reference() = default;
  explicit Reference(Pointer pointer) : pointer_(std::move(pointer)) {}
  Reference(const Reference& other) : pointer_(other.pointer_) { ++tally.references_copied; }
  Reference(Reference&& other) noexcept : pointer_(std::move(other.pointer_)) {}
  Reference& operator=(const Reference& other) {
    if (this != &other) {
      pointer_ = other.pointer_;
      ++tally.references_copied;
    }
    return *this;
  }
  Reference& operator=(Reference&& other) noexcept {
    pointer_ = std::move(other.pointer_);
    return *this;
  }
  ~Reference() = default;

  Element* get() const { return pointer_.get(); }
  Element& operator*() const { return *pointer_; }
  Element* operator->() const { return pointer_.get(); }
  explicit operator bool() const { return pointer_ != nullptr; }
  void reset() { pointer_ = Pointer(); }

 private:
  Pointer pointer_;
};

// The only reference to an object; giving one up is counted, whatever the storage then does.
template <class T, class Disposer>
class Owner {
 public:
  Owner(T* object, Disposer disposer) : object_(object, std::move(disposer)) {}
  Owner(Owner&&) noexcept = default;
  Owner& operator=(Owner&& other) noexcept {
    reset();
    object_ = std::move(other.object_);
    return *this;
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() { reset(); }

  void reset() {
    tally.frees += object_ ? 1U : 0U;
    object_.reset();
  }
  T* get() const { return object_.get(); }
  T& operator*() const { return *object_; }
  T* operator->() const { return object_.get(); }

 private:
  std::unique_ptr<T, Disposer> object_;
};

}  // namespace cowshed::search
