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

// Ref<T>: a reference to a published object (share/registry.h), for this process and others.
namespace cowshed {

// Thrown by Ref's operators.  error() is the error of Ref::get().
class BadRef : public std::logic_error {
 public:
  explicit BadRef(Error error) : std::logic_error(error.message), error_(std::move(error)) {}
  const Error& error() const noexcept { return error_; }

 private:
  Error error_;
};

namespace internal {

constexpr std::uint32_t kMaxPublished = COWSHED_MAX_OBJECTS;

// Passed by value, so that a Ref can stay in registers.
struct RefBits {
  RefBits() = default;
  RefBits(std::uint64_t tree_bits, std::uint32_t generation, std::uintptr_t address)
      : lower(address << 16U | generation % kMaxPublished),
        upper(tree_bits << 16U | generation / kMaxPublished) {}

  // 48 bits, random; a process and all that it starts have the same.
  std::uint64_t tree() const { return upper >> 16U; }
  // Unique among all publications of the tree.
  std::uint32_t generation() const {
    return static_cast<std::uint32_t>((upper & 0xffffU) << 16U | slot());
  }
  // Of the object or array, in every process of the tree.  User space has 47 bits.
  std::uintptr_t address() const { return lower >> 16U; }
  std::uint32_t slot() const { return lower & 0xffffU; }  // index in published_slots

  bool operator==(const RefBits&) const = default;

  std::uint64_t lower = 0;
  std::uint64_t upper = 0;
};
static_assert(kMaxPublished == 1U << 16U);

struct alignas(16) PublishedSlot {
  std::atomic<std::uint64_t> stamp = 0;  // stamp_of() the publication; 0: the slot is free
  std::atomic<const void*> object = nullptr;
};

// Combines all bits and the type, so that one compare checks them.  Two publications have the same
// stamp with a probability of 2^-64.  The type is the address of its std::type_info: unlike the
// type's spelling, it is the same in all source files of a program.
inline std::uint64_t stamp_of(RefBits bits, const std::type_info& type) {
  return bits.lower ^ bits.upper * 0x9e3779b97f4a7c15 ^ reinterpret_cast<std::uintptr_t>(&type);
}

// Lets a Ref find its object without a lock.  Filled by share/registry/tables.h.
extern std::array<PublishedSlot, kMaxPublished> published_slots;

// Constructs, in the registry, the span that a reference to an array refers to.
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
  SpanMaker* make_span;  // null: not an array
};

template <class T>
inline constexpr TypeInfo kTypeInfo = {sizeof(T), alignof(T), type_name<T>(), &typeid(T),
                                       ArrayOf<T>::kMakeSpan};

// The slow look-up, if the stamp does not match.  It succeeds at the first use of an object that
// another process published, and if another object has the slot.  Null: explain() says why.
const void* resolve(RefBits bits, const TypeInfo& type) noexcept;

Error explain(RefBits bits, const TypeInfo& type);

std::string describe(RefBits bits, std::string_view type);

}  // namespace internal

// A typed reference to a published object.  It has 16 bytes, which mean the same in all processes,
// so a program may copy, hash, store or send them.
//
// It is valid in the process that published the object, in all processes that this one starts
// later, and in processes that receive the arena (share/arena_transfer.h).  Every use checks that,
// by an index and a compare, in about 1 ns.
//
// Threads: uses are thread-safe.  They take a lock only if they fail, and at the first use of an
// object that another process published.  Do not withdraw the object or destroy its arena while
// another thread uses it.  Later uses fail with `released`.
template <class T>
class Ref {
 public:
  using element_type = const T;

  Ref() = default;  // refers to nothing: uses fail with null_reference
  explicit Ref(internal::RefBits bits) : bits_(bits) {}

  // Null if get() fails.
  const T* try_get() const noexcept {
    const auto& slot = internal::published_slots[bits_.slot()];
    if (slot.stamp.load(std::memory_order_acquire) == internal::stamp_of(bits_, typeid(T)))
        [[likely]] {
      // Not from the slot: so the processor need not wait for it.
      if constexpr (internal::ArrayOf<T>::kMakeSpan == nullptr)
        return reinterpret_cast<const T*>(bits_.address());
      return static_cast<const T*>(slot.object.load(std::memory_order_relaxed));
    }
    return static_cast<const T*>(internal::resolve(bits_, internal::kTypeInfo<T>));
  }

  // Errors: null_reference, wrong_type, wrong_process_tree, released, published_too_late (after
  // this process was started), not_inherited (the arena was not frozen when this process was
  // started), not_spawn_safe (see share/spawn_safe.h).
  Expected<const T*> get() const {
    if (const T* object = try_get()) return object;
    return tl::make_unexpected(internal::explain(bits_, internal::kTypeInfo<T>));
  }

  // Throw BadRef if get() fails.
  const T& operator*() const { return *operator->(); }
  const T* operator->() const {
    if (const T* object = try_get()) return object;
    throw BadRef(internal::explain(bits_, internal::kTypeInfo<T>));
  }

  bool operator==(const Ref&) const = default;
  internal::RefBits bits() const noexcept { return bits_; }

 private:
  internal::RefBits bits_;
};

// For logs: "Ref<Index>(generation 1, tree 5b0c7a9d31e4)" or "Ref<Index>(nothing)".
// Does not check the reference.
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

// Equal in all processes of the tree.
template <class T>
struct std::hash<cowshed::Ref<T>> {
  std::size_t operator()(const cowshed::Ref<T>& ref) const noexcept {
    return ref.bits().lower ^ ref.bits().upper * 0x9e3779b97f4a7c15;
  }
};
