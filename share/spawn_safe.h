#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include <cowshed/base/type_id.h>
#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/immortal_ptr.h>

namespace cowshed {

// Whether the bytes of a T mean the same in a process that runs another program, or the same
// program at other addresses (ASLR).  Pointers to code do not: vtables, function pointers,
// std::type_info. Nor do pointers to memory outside the arena.  A std::pmr container has a
// memory_resource*, which has a vtable; a std::string points to the heap.  A forked process needs
// none of this.
//
// True by default for trivially copyable types, for standard pairs, tuples, arrays, optionals and
// variants of safe types, and for containers of safe types with ArenaAllocator.  For another safe
// type, write before its first use:
//
//   template <>
//   inline constexpr bool cowshed::spawn_safe<Index> = true;
//
// C++ cannot see the members of a class.  So a trivially copyable class counts as safe even if it
// has pointers, as the nodes of a list do.  Its author ensures that they point into the arena, or
// specialises this as false.  False for T*, std::span, std::string_view, std::reference_wrapper and
// pointers to functions: hold an ImmortalPtr<T> instead, which points into an arena.
template <class T>
inline constexpr bool spawn_safe = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> &&
                                   !std::is_member_pointer_v<T> && !std::is_reference_v<T>;

namespace internal {
template <class T>
inline constexpr bool kArenaAllocator = false;
template <class T>
inline constexpr bool kArenaAllocator<ArenaAllocator<T>> = true;
template <class T>
inline constexpr bool kArenaContainer = false;
template <class T>
  requires requires { typename T::allocator_type; }
inline constexpr bool kArenaContainer<T> = kArenaAllocator<typename T::allocator_type>;
}  // namespace internal

template <class T>
inline constexpr bool spawn_safe<const T> = spawn_safe<T>;
template <class T, std::size_t size>
inline constexpr bool spawn_safe<T[size]> = spawn_safe<T>;
template <class T, std::size_t size>
inline constexpr bool spawn_safe<const T[size]> = spawn_safe<T>;

template <class T, std::size_t extent>
inline constexpr bool spawn_safe<std::span<T, extent>> = false;
template <class Char, class Traits>
inline constexpr bool spawn_safe<std::basic_string_view<Char, Traits>> = false;
template <class T>
inline constexpr bool spawn_safe<std::reference_wrapper<T>> = false;
template <class T>
inline constexpr bool spawn_safe<ImmortalPtr<T>> = spawn_safe<T>;

template <class T, std::size_t size>
inline constexpr bool spawn_safe<std::array<T, size>> = spawn_safe<T>;
template <class First, class Second>
inline constexpr bool spawn_safe<std::pair<First, Second>> =
    spawn_safe<First> && spawn_safe<Second>;
template <class... Ts>
inline constexpr bool spawn_safe<std::tuple<Ts...>> = (spawn_safe<Ts> && ...);
template <class... Ts>
inline constexpr bool spawn_safe<std::variant<Ts...>> = (spawn_safe<Ts> && ...);
template <class T>
inline constexpr bool spawn_safe<std::optional<T>> = spawn_safe<T>;

// Includes the comparison or the hash, which the container stores.
template <template <class...> class Container, class... Ts>
  requires(internal::kArenaContainer<Container<Ts...>> && !std::is_polymorphic_v<Container<Ts...>>)
inline constexpr bool spawn_safe<Container<Ts...>> =
    ((spawn_safe<Ts> || internal::kArenaAllocator<Ts>) && ...);

namespace internal {
template <class T>
constexpr bool has_safe_parts() {
  bool safe = spawn_safe<typename T::value_type>;
  if constexpr (requires { typename T::hasher; }) safe = safe && spawn_safe<typename T::hasher>;
  if constexpr (requires { typename T::key_equal; })
    safe = safe && spawn_safe<typename T::key_equal>;
  if constexpr (requires { typename T::key_compare; })
    safe = safe && spawn_safe<typename T::key_compare>;
  return safe;
}
}  // namespace internal

// A container whose template parameters are not all types, by the parts that it names.
template <class T>
  requires(internal::kArenaContainer<T> && !std::is_polymorphic_v<T> &&
           type_name<T>().ends_with('>') && requires(const T& t) { t.begin(), t.end(); })
inline constexpr bool spawn_safe<T> = internal::has_safe_parts<T>();

}  // namespace cowshed
