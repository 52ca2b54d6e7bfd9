#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/immortal_ptr.h>

namespace cowshed {

// Whether the bytes of a T mean the same in a process that runs another program, or the same one at
// other addresses (ASLR).  What does not is code: vtables, function pointers, std::type_info, and
// pointers to what lies outside the arena.  A std::pmr container has a memory_resource*, which has
// a vtable; std::string and the like point to the heap.  fork() needs none of this.
//
// True by default for trivially copyable types, for the standard's pairs, tuples, arrays, optionals
// and variants of safe types, and for its containers of such with ArenaAllocator.  The author of
// any other type that is safe says so, before its first use:
//
//   template <>
//   inline constexpr bool cowshed::spawn_safe<Index> = true;
//
// C++ cannot look into a class: a trivially copyable one counts as safe with any pointer in it, as
// a linked node must; its author sees to it that it points into the arena and not to code, or
// specialises this as false.  Where the pointer is all there is (T*, std::span, std::string_view,
// std::reference_wrapper), or is to code, the answer is false; hold an ImmortalPtr<T> instead,
// which says that the object is in the arena.
template <class T>
inline constexpr bool spawn_safe = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> &&
                                   !std::is_member_pointer_v<T> && !std::is_reference_v<T>;

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

template <class Char, class Traits, class Of>
inline constexpr bool spawn_safe<std::basic_string<Char, Traits, ArenaAllocator<Of>>> = true;
template <class T, class Of>
inline constexpr bool spawn_safe<std::vector<T, ArenaAllocator<Of>>> = spawn_safe<T>;
template <class T, class Of>
inline constexpr bool spawn_safe<std::deque<T, ArenaAllocator<Of>>> = spawn_safe<T>;
template <class T, class Of>
inline constexpr bool spawn_safe<std::list<T, ArenaAllocator<Of>>> = spawn_safe<T>;

// A comparison or a hash is stored in the container.
template <class Key, class Less, class Of>
inline constexpr bool spawn_safe<std::set<Key, Less, ArenaAllocator<Of>>> =
    spawn_safe<Key> && spawn_safe<Less>;
template <class Key, class Less, class Of>
inline constexpr bool spawn_safe<std::multiset<Key, Less, ArenaAllocator<Of>>> =
    spawn_safe<Key> && spawn_safe<Less>;
template <class Key, class T, class Less, class Of>
inline constexpr bool spawn_safe<std::map<Key, T, Less, ArenaAllocator<Of>>> =
    spawn_safe<std::pair<Key, T>> && spawn_safe<Less>;
template <class Key, class T, class Less, class Of>
inline constexpr bool spawn_safe<std::multimap<Key, T, Less, ArenaAllocator<Of>>> =
    spawn_safe<std::pair<Key, T>> && spawn_safe<Less>;
template <class Key, class Hash, class Equal, class Of>
inline constexpr bool spawn_safe<std::unordered_set<Key, Hash, Equal, ArenaAllocator<Of>>> =
    spawn_safe<std::tuple<Key, Hash, Equal>>;
template <class Key, class T, class Hash, class Equal, class Of>
inline constexpr bool spawn_safe<std::unordered_map<Key, T, Hash, Equal, ArenaAllocator<Of>>> =
    spawn_safe<std::tuple<Key, T, Hash, Equal>>;

}  // namespace cowshed
