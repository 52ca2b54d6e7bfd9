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

constexpr std::uint32_t kMaxPublished = layout::kMaxObjects;

struct RefBits {
  std::uint64_t tree = 0;        // random; a process and all that it starts have the same
  std::uint32_t generation = 0;  // unique among all publications of the tree
  std::uint32_t slot = 0;        // index in published_slots

  bool operator==(const RefBits&) const = default;
};

struct alignas(16) PublishedSlot {
  std::atomic<std::uint64_t> stamp = 0;  // stamp_of() the publication; 0: the slot is free
  std::atomic<const void*> object = nullptr;
};

// Combines tree, publication and type, so that one compare checks all three.  Two publications
// have the same stamp with a probability of 2^-64.  The type is the address of its std::type_info:
// unlike the type's spelling, it is the same in all source files of a program.
inline std::uint64_t stamp_of(const RefBits& bits, const std::type_info& type) {
  return bits.tree ^ reinterpret_cast<std::uintptr_t>(&type) ^ bits.generation * 0x9e3779b97f4a7c15;
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
constexpr TypeInfo type_info() {
  return {sizeof(T), alignof(T), type_name<T>(), &typeid(T), ArrayOf<T>::kMakeSpan};
}

// The slow look-up, if the stamp does not match.  It succeeds at the first use of an object that
// another process published, and if another object has the slot.  Null: explain() says why.
const void* resolve(const RefBits& bits, const TypeInfo& type) noexcept;

Error explain(const RefBits& bits, const TypeInfo& type);

std::string describe(const RefBits& bits, std::string_view type);

}  // namespace internal

// A typed reference to a published object.  It has 16 bytes and no pointers, so a program may copy,
// hash, store or send it as bytes.
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
  explicit Ref(const internal::RefBits& bits) : bits_(bits) {}

  // Null if get() fails.
  const T* try_get() const noexcept {
    const auto& slot = internal::published_slots[bits_.slot % internal::kMaxPublished];
    if (slot.stamp.load(std::memory_order_acquire) == internal::stamp_of(bits_, typeid(T)))
        [[likely]] {
      return static_cast<const T*>(slot.object.load(std::memory_order_relaxed));
    }
    return static_cast<const T*>(internal::resolve(bits_, internal::type_info<T>()));
  }

  // Errors: null_reference, wrong_type, wrong_process_tree, released, published_too_late (after
  // this process was started), not_inherited (the arena was not frozen when this process was
  // started), not_spawn_safe (see share/spawn_safe.h).
  Expected<const T*> get() const {
    if (const T* object = try_get()) return object;
    return tl::make_unexpected(internal::explain(bits_, internal::type_info<T>()));
  }

  // Throw BadRef if get() fails.
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

// For logs: "Ref<Index>(slot 0, generation 1, tree 5b0c7a9d31e4f286)" or "Ref<Index>(nothing)".
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
    return ref.bits().tree ^ ref.bits().generation * 0x9e3779b97f4a7c15;
  }
};
