#pragma once

#include <string_view>

#include <cowshed/share/ref.h>

// Names for arena objects, inherited by fork.
//
//   auto ref = cowshed::publish("index", index);      // T* in an arena: Ref<T>
//   auto same = cowshed::find<Index>("index");        // here or in a child
//
// All functions are thread-safe.  What a child publishes, finds or withdraws is its own affair.
namespace cowshed {

namespace internal {
Expected<RefBits> publish(std::string_view name, const void* object, const TypeInfo& type);
Expected<RefBits> find(std::string_view name, const TypeInfo& type);
Expected<void> withdraw(const RefBits& bits, const TypeInfo& type);
}  // namespace internal

// Gives the object a name (1 to 63 characters) until it is withdrawn or its arena is destroyed.
// Before or after the freeze; but a child forked before the freeze has only the error.  A process
// has at most 65,536 published objects.  Errors: not_in_arena, not_inherited, invalid_argument
// (the name, or it is in use).
template <class T>
Expected<Ref<T>> publish(std::string_view name, const T* object) {
  return internal::publish(name, object, internal::type_info<T>()).map([](const auto& bits) {
    return Ref<T>(bits);
  });
}

// A search through all names under a lock: keep the Ref.  Errors: not_published, wrong_type.
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

}  // namespace cowshed
