#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <type_traits>
#include <vector>

#include <cowshed/share/ref.h>
#include <cowshed/share/spawn_safe.h>

// References to arena objects, inherited by fork, and names for them.
//
//   auto ref = cowshed::publish("index", index);      // T* in an arena: Ref<T>
//   auto same = cowshed::find<Index>("index");        // here or in a child
//   auto array = cowshed::publish("words", std::span(words));  // Ref<std::span<const Word>>
//
// All functions are thread-safe.  What a child publishes, finds or withdraws is its own affair.
namespace cowshed {

namespace internal {
struct Publication {
  const void* address = nullptr;
  std::size_t bytes = 0;
  std::size_t alignment = 1;
  TypeInfo type;
  bool spawn_safe = false;
};
// `name` is null for none.
Expected<RefBits> publish(const std::string_view* name, const Publication& publication);
Expected<RefBits> find(std::string_view name, const TypeInfo& type);
Expected<void> withdraw(const RefBits& bits, const TypeInfo& type);

template <class T>
Expected<Ref<T>> publish_object(const std::string_view* name, const T* object) {
  return publish(name, {object, sizeof(T), alignof(T), type_info<T>(), spawn_safe<T>})
      .map([](const RefBits& bits) { return Ref<T>(bits); });
}

template <class T>  // const
Expected<Ref<std::span<T>>> publish_array(const std::string_view* name, std::span<T> array) {
  const Publication publication{array.data(), array.size_bytes(), alignof(T),
                                type_info<std::span<T>>(), spawn_safe<T>};
  return publish(name, publication).map([](const RefBits& bits) {
    return Ref<std::span<T>>(bits);
  });
}
}  // namespace internal

// Gives the object a name (1 to 63 characters) until it is withdrawn or its arena is destroyed.
// Before or after the freeze; but a child forked before the freeze has only the error.  A process
// has at most 65,536 published objects.  Errors: not_in_arena, not_inherited, invalid_argument
// (the name, or it is in use).
template <class T>
Expected<Ref<T>> publish(std::string_view name, const T* object) {
  return internal::publish_object(&name, object);
}

// The same without a name: only who is given the reference has it.
template <class T>
Expected<Ref<T>> publish(const T* object) {
  return internal::publish_object(nullptr, object);
}

// The same for an array, all of which must lie in one arena.
template <class T, std::size_t extent>
Expected<Ref<std::span<const T>>> publish(std::string_view name, std::span<T, extent> array) {
  return internal::publish_array<const T>(&name, array);
}
template <class T, std::size_t extent>
Expected<Ref<std::span<const T>>> publish(std::span<T, extent> array) {
  return internal::publish_array<const T>(nullptr, array);
}

// A search through all names under a lock: keep the Ref.  Errors: not_published, not_inherited
// (the arena was open at the fork), wrong_type, not_spawn_safe (it came with an image, see
// share/arena_image.h).
template <class T>
Expected<Ref<T>> find(std::string_view name) {
  return internal::find(name, internal::type_info<T>()).map([](const auto& bits) {
    return Ref<T>(bits);
  });
}

// From here every use of the reference or a copy of it fails with `released`, and the name is free.
// The object stays where it is.  Errors: those of Ref::get().
template <class T>
Expected<void> withdraw(const Ref<T>& ref) {
  return internal::withdraw(ref.bits(), internal::type_info<T>());
}

// A published object, for a list of them.
struct Published {
  std::string name;  // empty: published without one
  std::string type;  // as the compiler writes it
  std::size_t bytes = 0;
  std::string arena;
  std::uint32_t generation = 0;  // differs for every publication of the process tree
  pid_t publisher = 0;           // the process that published it: this one or an ancestor
};

// What can be had in this process now, in no order.
std::vector<Published> published();

}  // namespace cowshed
