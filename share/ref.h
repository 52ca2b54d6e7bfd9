#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <typeinfo>

#include <cowshed/base/error.h>
#include <cowshed/share/type_id.h>

namespace cowshed {

// What Ref's operators throw; `error` says what is wrong with the reference.
class BadRef : public std::logic_error {
 public:
  explicit BadRef(Error error) : std::logic_error(error.message), error_(std::move(error)) {}
  const Error& error() const noexcept { return error_; }

 private:
  Error error_;
};

namespace internal {

constexpr std::uint32_t kMaxPublished = 1U << 16U;

struct RefBits {
  std::uint64_t tree = 0;        // random, one for a process and all that it forks
  std::uint32_t generation = 0;  // differs for every publication in the tree
  std::uint32_t slot = 0;

  bool operator==(const RefBits&) const = default;
};

struct alignas(16) PublishedSlot {
  std::atomic<std::uint64_t> stamp = 0;  // stamp_of() the publication; 0: nothing to be had here
  std::atomic<const void*> object = nullptr;
};

// One number for all that must be right, so that a use costs one compare.  Two publications share
// one by a chance of 1 in 2^64.
constexpr std::uint64_t stamp_of(const RefBits& bits, std::uint64_t type) {
  return bits.tree ^ type ^ bits.generation * 0x9e3779b97f4a7c15;
}

extern std::array<PublishedSlot, kMaxPublished> published_slots;

struct TypeInfo {
  std::uint64_t id;
  std::size_t size;
  std::size_t alignment;
  std::string_view name;
  const std::type_info* rtti;  // its name is the same in every program
};

template <class T>
constexpr TypeInfo type_info() {
  return {kTypeId<T>, sizeof(T), alignof(T), type_name<T>(), &typeid(T)};
}

// Why a look-up failed.
Error explain(const RefBits& bits, const TypeInfo& type);

std::string describe(const RefBits& bits, std::string_view type);

}  // namespace internal

// A typed reference to a published object: 16 bytes without pointers, to be copied, hashed, stored
// or sent through a pipe as bytes.  Good in the process that published and in every process forked
// after that from it, and checked at each use: an index and a compare, about 1 ns.
//
// Uses are thread-safe and lock-free.  As with a pointer, withdrawing the object or destroying its
// arena while somebody uses it is the program's error; afterwards every use fails with `released`.
template <class T>
class Ref {
 public:
  using element_type = const T;

  Ref() = default;  // refers to nothing: null_reference
  explicit Ref(const internal::RefBits& bits) : bits_(bits) {}

  // Null when get() would fail.
  const T* try_get() const noexcept {
    const auto& slot = internal::published_slots[bits_.slot % internal::kMaxPublished];
    const bool right =
        slot.stamp.load(std::memory_order_acquire) == internal::stamp_of(bits_, kTypeId<T>);
    return right ? static_cast<const T*>(slot.object.load(std::memory_order_relaxed)) : nullptr;
  }

  // Errors: null_reference, wrong_type, wrong_process_tree, released, published_too_late (after
  // this process was forked), not_inherited (its arena was not frozen at the fork).
  Expected<const T*> get() const {
    if (const T* object = try_get()) {
      return object;
    }
    return tl::make_unexpected(internal::explain(bits_, internal::type_info<T>()));
  }

  // The same for code that has checked before; throw BadRef where get() would fail.
  const T& operator*() const { return *operator->(); }
  const T* operator->() const {
    if (const T* object = try_get()) {
      return object;
    }
    throw BadRef(internal::explain(bits_, internal::type_info<T>()));
  }

  bool operator==(const Ref&) const = default;
  const internal::RefBits& bits() const noexcept { return bits_; }

 private:
  internal::RefBits bits_;
};

// "Ref<Index>(slot 0, generation 1, tree 5b0c7a9d31e4f286)", or "Ref<Index>(nothing)", for logs.
// Says nothing of whether the reference is good.
template <class T>
std::string to_string(const Ref<T>& ref) {
  return internal::describe(ref.bits(), type_name<T>());
}

template <class T, class Traits>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out,
                                             const Ref<T>& ref) {
  return out << to_string(ref);
}

static_assert(sizeof(Ref<int>) == 16 && std::is_trivially_copyable_v<Ref<int>>);

}  // namespace cowshed

// The same in all processes of the tree.
template <class T>
struct std::hash<cowshed::Ref<T>> {
  std::size_t operator()(const cowshed::Ref<T>& ref) const noexcept {
    // stamp_of() mixes all but the slot, and no two publications share a generation.
    return cowshed::internal::stamp_of(ref.bits(), cowshed::kTypeId<T>);
  }
};
