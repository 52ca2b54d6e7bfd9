#pragma once

#include <compare>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <memory_resource>
#include <type_traits>
#include <utility>

#include <cowshed/share/arena.h>
#include <cowshed/share/reference_counts.h>

// std::shared_ptr and std::weak_ptr for objects in an arena, for code that needs its counts.  They
// lie in ordinary private memory, so that copying and dropping pointers in a forked child writes to
// no page of the frozen arena: only to its own stack and 8 bytes of count per object.  (Code that
// does not need counts is better served by immortal_ptr.h, which writes nothing at all.)
//
//   auto node = cowshed::make_counted<Node>(arena, "name").value();
//   std::pmr::vector<cowshed::CountedPtr<const Node>> nodes(arena.resource());
//
// Before the freeze the last pointer destroys the object and gives its memory back, as the
// standard's do.  From the freeze on nothing is destroyed: the counts go on, in each process for
// itself, starting with what was counted at the fork, and a count of zero only means that
// WeakCountedPtr::lock() finds nothing in that process.
//
// A process that maps the arena but did not inherit its counts (a program started by exec, an image
// on disk) counts nothing: use_count() is 1 and lock() always succeeds.  The same holds for
// pointers that outlive their arena, which may be copied and dropped, but not dereferenced or
// locked.
//
// Thread and fork safety: that of std::shared_ptr; counting is lock-free and goes on over a fork in
// another thread (what that thread held, the child never drops).  2^31 pointers to one object make
// it immortal.  Not offered: arrays, atomic, enable_shared_from_this, get_deleter.
namespace cowshed {

template <class T>
class WeakCountedPtr;

template <class T>
class CountedPtr {
 public:
  using element_type = T;
  using weak_type = WeakCountedPtr<T>;

  constexpr CountedPtr() noexcept = default;
  constexpr CountedPtr(std::nullptr_t) noexcept {}

  // Takes over an object from elsewhere, to be deleted in the end; the counts need no arena.
  // Throws std::bad_alloc, in which case it is deleted at once.
  template <class Other>
    requires std::is_convertible_v<Other*, T*>
  explicit CountedPtr(Other* object) : CountedPtr(std::unique_ptr<Other>(object)) {}
  template <class Other, class Deleter>
    requires std::is_convertible_v<Other*, T*>
  CountedPtr(Other* object, Deleter deleter)
      : CountedPtr(std::unique_ptr<Other, Deleter>(object, std::move(deleter))) {}
  template <class Other, class Deleter>
    requires std::is_convertible_v<typename std::unique_ptr<Other, Deleter>::pointer, T*>
  CountedPtr(std::unique_ptr<Other, Deleter>&& owner);

  CountedPtr(const CountedPtr& other) noexcept : object_(other.object_), count_(other.count_) {
    internal::add_use(count_);
  }
  CountedPtr(CountedPtr&& other) noexcept
      : object_(std::exchange(other.object_, nullptr)), count_(std::exchange(other.count_, {})) {}
  template <class Other>
    requires std::is_convertible_v<Other*, T*>
  CountedPtr(const CountedPtr<Other>& other) noexcept : CountedPtr(other, other.get()) {}
  template <class Other>
    requires std::is_convertible_v<Other*, T*>
  CountedPtr(CountedPtr<Other>&& other) noexcept : CountedPtr(std::move(other), other.get()) {}

  // Aliasing: points to `object`, and keeps what `owner` keeps.
  template <class Other>
  CountedPtr(const CountedPtr<Other>& owner, T* object) noexcept
      : object_(object), count_(owner.count_) {
    internal::add_use(count_);
  }
  template <class Other>
  CountedPtr(CountedPtr<Other>&& owner, T* object) noexcept
      : object_(object), count_(std::exchange(owner.count_, {})) {
    owner.object_ = nullptr;
  }

  // Throws std::bad_weak_ptr when it has expired.
  template <class Other>
    requires std::is_convertible_v<Other*, T*>
  explicit CountedPtr(const WeakCountedPtr<Other>& weak) : CountedPtr(weak.lock()) {
    if (count_ == internal::CountHandle{}) {
      throw std::bad_weak_ptr();
    }
  }

  // From whatever a CountedPtr can be made of implicitly.
  CountedPtr& operator=(CountedPtr other) noexcept {
    swap(other);
    return *this;
  }

  ~CountedPtr() { internal::drop_use(count_); }

  void reset() noexcept { CountedPtr().swap(*this); }
  template <class Other>
    requires std::is_convertible_v<Other*, T*>
  void reset(Other* object) {
    CountedPtr(object).swap(*this);
  }
  template <class Other, class Deleter>
    requires std::is_convertible_v<Other*, T*>
  void reset(Other* object, Deleter deleter) {
    CountedPtr(object, std::move(deleter)).swap(*this);
  }
  void swap(CountedPtr& other) noexcept {
    std::swap(object_, other.object_);
    std::swap(count_, other.count_);
  }

  T* get() const noexcept { return object_; }
  std::add_lvalue_reference_t<T> operator*() const noexcept { return *object_; }
  T* operator->() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

  // This process's; 0 when it owns nothing.
  long use_count() const noexcept { return internal::use_count(count_); }

  template <class Other>
  bool owner_before(const CountedPtr<Other>& other) const noexcept {
    return count_ < other.count_;
  }
  template <class Other>
  bool owner_before(const WeakCountedPtr<Other>& other) const noexcept {
    return count_ < other.count_;
  }

 private:
  template <class Other>
  friend class CountedPtr;
  template <class Other>
  friend class WeakCountedPtr;
  template <class Other, class... Args>
  friend CountedPtr<Other> allocate_counted(std::pmr::polymorphic_allocator<>, Args&&...);

  // Takes over a use that is already counted.
  CountedPtr(internal::CountHandle count, T* object) noexcept : object_(object), count_(count) {}

  T* object_ = nullptr;
  internal::CountHandle count_;
};

template <class T>
class WeakCountedPtr {
 public:
  using element_type = T;

  constexpr WeakCountedPtr() noexcept = default;
  WeakCountedPtr(const WeakCountedPtr& other) noexcept
      : object_(other.object_), count_(other.count_) {
    internal::add_weak(count_);
  }
  WeakCountedPtr(WeakCountedPtr&& other) noexcept
      : object_(std::exchange(other.object_, nullptr)), count_(std::exchange(other.count_, {})) {}
  // By lock(), since a pointer to a virtual base is found through the object, which may be gone.
  template <class Other>
    requires std::is_convertible_v<Other*, T*>
  WeakCountedPtr(const WeakCountedPtr<Other>& other) noexcept
      : object_(other.lock().get()), count_(other.count_) {
    internal::add_weak(count_);
  }
  template <class Other>
    requires std::is_convertible_v<Other*, T*>
  WeakCountedPtr(const CountedPtr<Other>& owner) noexcept
      : object_(owner.get()), count_(owner.count_) {
    internal::add_weak(count_);
  }
  WeakCountedPtr& operator=(WeakCountedPtr other) noexcept {
    swap(other);
    return *this;
  }
  ~WeakCountedPtr() { internal::drop_weak(count_); }

  void reset() noexcept { WeakCountedPtr().swap(*this); }
  void swap(WeakCountedPtr& other) noexcept {
    std::swap(object_, other.object_);
    std::swap(count_, other.count_);
  }

  long use_count() const noexcept { return internal::use_count(count_); }
  bool expired() const noexcept { return use_count() == 0; }
  CountedPtr<T> lock() const noexcept {
    return internal::add_use_if_used(count_) ? CountedPtr<T>(count_, object_) : CountedPtr<T>();
  }

  template <class Other>
  bool owner_before(const CountedPtr<Other>& other) const noexcept {
    return count_ < other.count_;
  }
  template <class Other>
  bool owner_before(const WeakCountedPtr<Other>& other) const noexcept {
    return count_ < other.count_;
  }

 private:
  template <class Other>
  friend class CountedPtr;
  template <class Other>
  friend class WeakCountedPtr;

  T* object_ = nullptr;
  internal::CountHandle count_;
};

template <class T, class Other>
bool operator==(const CountedPtr<T>& left, const CountedPtr<Other>& right) noexcept {
  return left.get() == right.get();
}
template <class T, class Other>
std::strong_ordering operator<=>(const CountedPtr<T>& left,
                                 const CountedPtr<Other>& right) noexcept {
  return std::compare_three_way{}(left.get(), right.get());
}
template <class T>
bool operator==(const CountedPtr<T>& pointer, std::nullptr_t) noexcept {
  return pointer.get() == nullptr;
}
template <class T>
std::strong_ordering operator<=>(const CountedPtr<T>& pointer, std::nullptr_t) noexcept {
  return std::compare_three_way{}(pointer.get(), static_cast<T*>(nullptr));
}

template <class T>
void swap(CountedPtr<T>& left, CountedPtr<T>& right) noexcept {
  left.swap(right);
}
template <class T>
void swap(WeakCountedPtr<T>& left, WeakCountedPtr<T>& right) noexcept {
  left.swap(right);
}

template <class T, class Other>
CountedPtr<T> static_pointer_cast(CountedPtr<Other> pointer) noexcept {
  T* object = static_cast<T*>(pointer.get());
  return CountedPtr<T>(std::move(pointer), object);
}
template <class T, class Other>
CountedPtr<T> const_pointer_cast(CountedPtr<Other> pointer) noexcept {
  T* object = const_cast<T*>(pointer.get());
  return CountedPtr<T>(std::move(pointer), object);
}
template <class T, class Other>
CountedPtr<T> reinterpret_pointer_cast(CountedPtr<Other> pointer) noexcept {
  T* object = reinterpret_cast<T*>(pointer.get());
  return CountedPtr<T>(std::move(pointer), object);
}
template <class T, class Other>
CountedPtr<T> dynamic_pointer_cast(CountedPtr<Other> pointer) noexcept {
  T* object = dynamic_cast<T*>(pointer.get());
  return object == nullptr ? CountedPtr<T>() : CountedPtr<T>(std::move(pointer), object);
}

namespace internal {

// The object, and beside it only what is not written while it lives.
template <class T>
class PlacedBlock final : public CountedBlock {
 public:
  template <class... Args>
  explicit PlacedBlock(std::pmr::polymorphic_allocator<> allocator, Args&&... args)
      : allocator_(allocator) {
    std::uninitialized_construct_using_allocator(&object_, allocator, std::forward<Args>(args)...);
  }
  ~PlacedBlock() {}

  T* object() noexcept { return &object_; }
  void destroy() noexcept override { std::destroy_at(&object_); }
  void deallocate() noexcept override {
    auto allocator = allocator_;
    std::destroy_at(this);
    allocator.deallocate_object(this);
  }

 private:
  std::pmr::polymorphic_allocator<> allocator_;
  union {
    T object_;
  };
};

template <class Owner>
class AdoptedBlock final : public CountedBlock {
 public:
  explicit AdoptedBlock(Owner&& owner) noexcept : owner_(std::move(owner)) {}
  void destroy() noexcept override {
    if (may_destroy(std::to_address(owner_.get()))) {
      owner_.reset();
    } else {
      (void)owner_.release();
    }
  }
  void deallocate() noexcept override { delete this; }

 private:
  Owner owner_;
};

}  // namespace internal

template <class T>
template <class Other, class Deleter>
  requires std::is_convertible_v<typename std::unique_ptr<Other, Deleter>::pointer, T*>
CountedPtr<T>::CountedPtr(std::unique_ptr<Other, Deleter>&& owner) {
  if (owner == nullptr) {
    return;
  }
  using Block = internal::AdoptedBlock<std::unique_ptr<Other, Deleter>>;
  object_ = owner.get();
  auto block = std::make_unique<Block>(std::move(owner));
  count_ = internal::add_count(block.get());
  (void)block.release();
}

// Like std::allocate_shared: constructs a T in memory of the allocator, or of the memory_resource
// (which converts to one), and gives it to T and its members where they take one.  The resource
// must live until the last pointer drops.  Throws what the resource throws (ArenaBadAlloc), what
// T's constructor throws, and std::bad_alloc when there is no memory for counts.  Thread-safe.
template <class T, class... Args>
CountedPtr<T> allocate_counted(std::pmr::polymorphic_allocator<> allocator, Args&&... args) {
  using Block = internal::PlacedBlock<std::remove_cv_t<T>>;
  Block* block = allocator.allocate_object<Block>();
  try {
    std::construct_at(block, allocator, std::forward<Args>(args)...);
  } catch (...) {
    allocator.deallocate_object(block);
    throw;
  }
  try {
    return CountedPtr<T>(internal::add_count(block), block->object());
  } catch (...) {
    block->destroy();
    block->deallocate();
    throw;
  }
}

// The same in the manner of Arena::make(): what an arena refuses is an Error.
template <class T, class... Args>
Expected<CountedPtr<T>> make_counted(const Arena& arena, Args&&... args) {
  try {
    return allocate_counted<T>(arena.resource(), std::forward<Args>(args)...);
  } catch (const ArenaBadAlloc& failure) {
    return internal::refusal_of(failure);
  }
}

}  // namespace cowshed

template <class T>
struct std::hash<cowshed::CountedPtr<T>> {
  std::size_t operator()(const cowshed::CountedPtr<T>& pointer) const noexcept {
    return std::hash<T*>{}(pointer.get());
  }
};
