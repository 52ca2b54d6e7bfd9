#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <typeinfo>

#include <cowshed/base/error.h>
#include <cowshed/base/published_layout.h>
#include <cowshed/base/type_id.h>

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

constexpr std::uint32_t kMaxPublished = layout::kMaxObjects;

struct RefBits {
  std::uint64_t tree = 0;        // random, one for a process and all that it starts
  std::uint32_t generation = 0;  // differs for every publication in the tree
  std::uint32_t slot = 0;        // where to look first

  bool operator==(const RefBits&) const = default;
};

struct alignas(16) PublishedSlot {
  std::atomic<std::uint64_t> stamp = 0;  // stamp_of() the publication; 0: nothing to be had here
  std::atomic<const void*> object = nullptr;
};

// One number for all that must be right, so that a use costs one compare.  Two publications share
// one by a chance of 1 in 2^64.  The type is the address of its std::type_info, which is the same
// in all source files of a program, as its spelling is not.
inline std::uint64_t stamp_of(const RefBits& bits, const std::type_info& type) {
  return bits.tree ^ reinterpret_cast<std::uintptr_t>(&type) ^ bits.generation * 0x9e3779b97f4a7c15;
}

extern std::array<PublishedSlot, kMaxPublished> published_slots;

// Makes the span that the reference to an array gives, which lives in the registry.
using SpanMaker = void(void* place, const void* address, std::size_t bytes);

template <class T>
struct ArrayOf {
  static constexpr SpanMaker* kMakeSpan = nullptr;
};
template <class T>
struct ArrayOf<std::span<T>> {
  static constexpr SpanMaker* kMakeSpan = [](void* place, const void* address, std::size_t bytes) {
    new (place) std::span<T>(static_cast<T*>(address), bytes / sizeof(T));
  };
};

struct TypeInfo {
  std::size_t size;
  std::size_t alignment;
  std::string_view name;
  const std::type_info* rtti;
  SpanMaker* make_span;  // for an array
};

template <class T>
constexpr TypeInfo type_info() {
  return {sizeof(T), alignof(T), type_name<T>(), &typeid(T), ArrayOf<T>::kMakeSpan};
}

// The look-up where the stamp does not settle it: the first use, in this process, of what another
// one handed over.  Null when explain() says why.
const void* resolve(const RefBits& bits, const TypeInfo& type) noexcept;

// Why a look-up failed.
Error explain(const RefBits& bits, const TypeInfo& type);

std::string describe(const RefBits& bits, std::string_view type);

}  // namespace internal

// A typed reference to a published object: 16 bytes without pointers, to be copied, hashed, stored
// or sent through a pipe as bytes.  Good in the process that published, in every process that it
// starts after that, and in those that the arena is sent to (arena_transfer.h).  Checked at each
// use: an index and a compare, about 1 ns.
//
// Uses are thread-safe, and lock-free but for those that fail and, of an object that another
// process handed over, the first.  As with a pointer, withdrawing the object or destroying its
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
    if (slot.stamp.load(std::memory_order_acquire) == internal::stamp_of(bits_, typeid(T)))
        [[likely]] {
      return static_cast<const T*>(slot.object.load(std::memory_order_relaxed));
    }
    return static_cast<const T*>(internal::resolve(bits_, internal::type_info<T>()));
  }

  // Errors: null_reference, wrong_type, wrong_process_tree, released, published_too_late (after
  // this process was started), not_inherited (its arena was not frozen then), not_spawn_safe (see
  // spawn_safe.h).
  Expected<const T*> get() const {
    if (const T* object = try_get()) return object;
    return tl::make_unexpected(internal::explain(bits_, internal::type_info<T>()));
  }

  // The same for code that has checked before; throw BadRef where get() would fail.
  const T& operator*() const { return *operator->(); }
  const T* operator->() const {
    if (const T* object = try_get()) return object;
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
    return ref.bits().tree ^ ref.bits().generation * 0x9e3779b97f4a7c15;  // no two share these
  }
};
