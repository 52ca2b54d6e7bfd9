#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/share/ref.h>
#include <cowshed/share/spawn_safe.h>

// Publishes objects in arenas: gives them references, which forked children inherit, and names.
//
//   auto ref = cowshed::publish("index", index);               // T* in an arena: Ref<T>
//   auto same = cowshed::find<Index>("index");                 // here or in a child
//   auto array = cowshed::publish("words", std::span(words));  // Ref<std::span<const Word>>
//
// Threads: all functions are thread-safe.  Fork: a child inherits all publications; its own
// publications and withdrawals do not affect other processes.
namespace cowshed {

namespace internal {
struct Publication {
  const void* address = nullptr;
  std::size_t bytes = 0;
  std::size_t alignment = 1;
  TypeInfo type;
  bool spawn_safe = false;
};
// `name`: null for none.
Expected<RefBits> publish(const std::string_view* name, const Publication& publication);
Expected<RefBits> find(std::string_view name, const TypeInfo& type);
Expected<void> withdraw(RefBits bits, const TypeInfo& type);

template <class T>
Expected<Ref<T>> publish(const std::string_view* name, const T* object) {
  return publish(name, {object, sizeof(T), alignof(T), kTypeInfo<T>, spawn_safe<T>})
      .map([](RefBits bits) { return Ref<T>(bits); });
}

template <class T>
Expected<Ref<std::span<const T>>> publish(const std::string_view* name, std::span<const T> array) {
  using Array = std::span<const T>;
  return publish(name, {array.data(), array.size_bytes(), alignof(T), kTypeInfo<Array>,
                        spawn_safe<const T>})
      .map([](RefBits bits) { return Ref<Array>(bits); });
}
}  // namespace internal

// Publishes an object in an arena under a name of 1 to 63 characters, until it is withdrawn or its
// arena is destroyed.  Works before and after the freeze.  If a child was forked before the freeze,
// the reference fails there with not_inherited.  Errors: not_in_arena, not_inherited,
// invalid_argument (a bad name, a name in use, or more than 65,536 objects).
template <class T>
Expected<Ref<T>> publish(std::string_view name, const T* object) {
  return internal::publish(&name, object);
}

// Publishes it without a name: find() does not return it.
template <class T>
Expected<Ref<T>> publish(const T* object) {
  return internal::publish(nullptr, object);
}

// Publish an array, which must lie in one arena.
template <class T, std::size_t extent>
Expected<Ref<std::span<const T>>> publish(std::string_view name, std::span<T, extent> array) {
  return internal::publish(&name, std::span<const T>(array));
}
template <class T, std::size_t extent>
Expected<Ref<std::span<const T>>> publish(std::span<T, extent> array) {
  return internal::publish(nullptr, std::span<const T>(array));
}

// Returns the reference to the object of this name.  Takes a lock, so keep the reference.  Errors:
// not_published; not_inherited, if its arena was not frozen at the fork; wrong_type;
// not_spawn_safe, if it came with an image (share/arena_image.h).
template <class T>
Expected<Ref<T>> find(std::string_view name) {
  return internal::find(name, internal::kTypeInfo<T>).map([](const auto& bits) {
    return Ref<T>(bits);
  });
}

// Ends a publication and frees its name.  All copies of the reference then fail with `released`.
// The object itself stays.  Errors: those of Ref::get().
template <class T>
Expected<void> withdraw(const Ref<T>& ref) {
  return internal::withdraw(ref.bits(), internal::kTypeInfo<T>);
}

struct Published {
  std::string name;  // empty: published without a name
  std::string type;  // as the compiler writes it
  std::size_t bytes = 0;
  std::string arena;
  std::uint32_t generation = 0;  // unique among all publications of the process tree
  pid_t publisher = 0;           // the process that published it
};

// Returns all objects that this process can use now, in no order.
std::vector<Published> published();

}  // namespace cowshed
