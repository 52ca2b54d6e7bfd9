#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/immortal_ptr.h>
#include <cowshed/share/type_id.h>

// Copies a graph of ordinary objects into an arena, for programs whose data is not built there:
//
//   struct Node {
//     std::string name;
//     std::vector<std::shared_ptr<Node>> next;  // cycles are fine
//     std::weak_ptr<Node> parent;
//   };
//   struct FrozenNode {
//     std::pmr::string name;
//     std::pmr::vector<cowshed::ImmortalPtr<const FrozenNode>> next;
//     cowshed::ImmortalPtr<const FrozenNode> parent;
//   };
//   template <>
//   struct cowshed::FreezeTraits<Node> {
//     using frozen = FrozenNode;
//     static FrozenNode freeze(const Node& node, FreezeContext& context) {
//       return {context.copy(node.name), context.copy(node.next), context.copy(node.parent)};
//     }
//   };
//
//   std::shared_ptr<Node> root = ...;
//   const FrozenNode* frozen = cowshed::freeze_copy(arena, root).value();
//   arena.freeze();
//
// Known without traits, and copied in depth:
//   trivially copyable types                 as they are (give a struct that holds raw pointers
//                                            traits of its own: nobody else can see them)
//   std::string, vector, deque, list,        their std::pmr counterparts, in the arena
//   [unordered_](multi)map and (multi)set    (std::less<K>, std::hash<K>, F<K> become F<Frozen<K>>)
//   optional, variant, pair, tuple, array    themselves, of frozen elements
//   shared_ptr, unique_ptr, weak_ptr, T*     ImmortalPtr<const Frozen<T>>; null when expired
// Any other type without traits is a compile error that says so; so are string_view, span, void*
// and char*, which do not say what they point to or how much of it.
//
// Identity: an object that several pointers lead to is copied once, and a pointer into a
// std::vector leads into the vector's copy (the vector must be reached before such a pointer is
// followed; else invalid_argument).  A pointer to any other part of an object, as an element of a
// map or a member, gets a copy of that part.
// Polymorphic types: Base's traits say what a Derived becomes, else it is invalid_argument:
//     static ImmortalPtr<const FrozenBase> pointer(const Base& object, FreezeContext& context) {
//       if (auto* leaf = dynamic_cast<const Leaf*>(&object)) return context.pointer(leaf);
//       return context.exact_pointer(&object);  // a Base and nothing more
//     }
namespace cowshed {

class FreezeContext;

namespace internal {

template <class T>
inline constexpr bool kNever = false;

// Trivially copyable, but what it refers to must not be left behind.
template <class T>
inline constexpr bool kRefersElsewhere =
    std::is_pointer_v<T> && !std::is_function_v<std::remove_pointer_t<T>>;
template <class Char, class Traits>
inline constexpr bool kRefersElsewhere<std::basic_string_view<Char, Traits>> = true;
template <class T, std::size_t kExtent>
inline constexpr bool kRefersElsewhere<std::span<T, kExtent>> = true;
template <class T>
inline constexpr bool kRefersElsewhere<std::reference_wrapper<T>> = true;

template <class T>
inline constexpr bool kIsCharacter =
    std::is_same_v<T, char> || std::is_same_v<T, wchar_t> || std::is_same_v<T, char8_t> ||
    std::is_same_v<T, char16_t> || std::is_same_v<T, char32_t>;

struct CopiedAsIs {};
struct CopiedInDepth {};
struct FrozenToPointer {};

}  // namespace internal

// The customisation point: `frozen`, the type in the arena, and
// `static frozen freeze(const T& from, FreezeContext& context)`, which makes one by value. Declared
// before it is used: where types lead to each other, define freeze() after all the traits.
template <class T>
struct FreezeTraits {
  static_assert(internal::kNever<T>,
                "freeze_copy does not know this type: specialise cowshed::FreezeTraits<T> for it "
                "as share/freeze_copy.h shows");
  using frozen = void;
};

template <class T>
using Frozen = typename FreezeTraits<std::remove_cv_t<T>>::frozen;

// What a freeze() has to work with.  Used by one thread.  Construct the result from what it gives:
// a std::pmr container that is assigned to keeps its own memory, which need not be the arena's.
class FreezeContext {
 public:
  // A frozen copy by value.  What it is of must live until freeze_copy() returns: no temporary,
  // no local variable.  Objects behind pointers are only allocated now and constructed later, so
  // that neither cycles nor long lists recurse: do not dereference what you get.
  template <class T>
  Frozen<T> copy(const T& from) {
    return FreezeTraits<T>::freeze(from, *this);
  }
  template <class T>
  Frozen<T> copy(const T&& temporary) = delete;

  // Where the frozen copy of *object is or will be; null for null.
  template <class T>
  ImmortalPtr<const Frozen<T>> pointer(const T* object);
  template <class T>
  ImmortalPtr<const Frozen<T>> exact_pointer(const T* object);

  // The arena's, for what freeze() builds itself.
  std::pmr::polymorphic_allocator<> allocator() const noexcept { return resource_; }

  FreezeContext(const FreezeContext&) = delete;
  FreezeContext& operator=(const FreezeContext&) = delete;

 private:
  template <class T>
  friend struct FreezeTraits;
  template <class T>
  friend auto freeze_copy(const Arena& arena, const T& root);

  struct Type {  // of a source; told apart by address
    std::size_t source_size;
    std::size_t size;
    std::size_t alignment;
    void (*construct)(void* target, const void* source, FreezeContext& context);
    void (*destroy)(void* target);
    std::string_view name;
  };
  template <class T>
  static constexpr Type kTypeOf = {
      sizeof(T),
      sizeof(Frozen<T>),
      alignof(Frozen<T>),
      [](void* target, const void* source, FreezeContext& context) {
        ::new (target) Frozen<T>(FreezeTraits<T>::freeze(*static_cast<const T*>(source), context));
      },
      [](void* target) { std::destroy_at(static_cast<Frozen<T>*>(target)); },
      type_name<T>()};

  struct Key {
    const void* source;
    const Type* type;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const noexcept {
      return std::hash<const void*>{}(key.source) ^ (std::hash<const void*>{}(key.type) << 1U);
    }
  };
  struct Target {
    Key key;
    void* memory;
  };
  struct Elements {  // of a vector
    std::size_t count;
    const Type* type;
    std::byte* targets;
  };
  struct Failure {
    Error error;
  };

  explicit FreezeContext(std::pmr::memory_resource* resource) : resource_(resource) {}
  ~FreezeContext();  // gives back everything, unless finish() was reached

  void* target_of(const void* source, const Type& type);
  void* find_element(const Key& key) const;
  void add_elements(const void* first, const Elements& elements);
  void finish();
  [[noreturn]] static void refuse_derived(std::string_view base, const char* dynamic_type);

  std::pmr::memory_resource* resource_;
  std::unordered_map<Key, void*, KeyHash> memo_;
  std::vector<Target> targets_;  // in the order of their construction
  std::size_t constructed_ = 0;
  bool finished_ = false;
  std::map<const std::byte*, Elements, std::less<>> elements_;
};

template <class T>
ImmortalPtr<const Frozen<T>> FreezeContext::pointer(const T* object) {
  if (object == nullptr) {
    return nullptr;
  }
  if constexpr (requires { FreezeTraits<T>::pointer(*object, *this); }) {
    return FreezeTraits<T>::pointer(*object, *this);
  } else {
    return exact_pointer(object);
  }
}

template <class T>
ImmortalPtr<const Frozen<T>> FreezeContext::exact_pointer(const T* object) {
  if (object == nullptr) {
    return nullptr;
  }
  if constexpr (std::is_polymorphic_v<T> && !std::is_final_v<T>) {
    if (typeid(*object) != typeid(T)) {
      refuse_derived(type_name<T>(), typeid(*object).name());
    }
  }
  return ImmortalPtr<const Frozen<T>>(static_cast<const Frozen<T>*>(target_of(object, kTypeOf<T>)));
}

// Copies `root`, or what it points to when it is a pointer, and everything that it leads to.
// Returns the frozen root, null for a null pointer.  The graph stays as it is, must not change
// meanwhile, and may be destroyed afterwards.  Where something fails, everything is given back to
// the arena.  Errors: those of ArenaBadAlloc, invalid_argument (see above).  What a freeze() of the
// user's throws passes through.  Different threads may copy different graphs to one arena.
template <class T>
auto freeze_copy(const Arena& arena, const T& root) {
  const auto copy = [&root](FreezeContext& context) {
    if constexpr (std::is_base_of_v<internal::FrozenToPointer, FreezeTraits<T>>) {
      return context.copy(root).get();
    } else {
      return context.pointer(&root).get();
    }
  };
  using Result = Expected<std::invoke_result_t<decltype(copy), FreezeContext&>>;
  try {
    FreezeContext context(arena.resource());
    const auto frozen = copy(context);
    context.finish();
    return Result(frozen);
  } catch (const ArenaBadAlloc& failure) {
    return Result(internal::refusal_of(failure));
  } catch (FreezeContext::Failure& failure) {
    return Result(tl::make_unexpected(std::move(failure.error)));
  }
}

template <class T>
  requires(std::is_trivially_copyable_v<T> && !internal::kRefersElsewhere<T>)
struct FreezeTraits<T> : internal::CopiedAsIs {
  using frozen = T;
  static T freeze(const T& from, FreezeContext&) { return from; }
};

namespace internal {

template <class T>
inline constexpr bool kAsIs = std::is_base_of_v<CopiedAsIs, FreezeTraits<T>>;

// An object that orders or hashes keys, as it must be for frozen ones.
template <class Function, class Key>
struct FrozenFunction {
  using type = Function;
};
template <template <class> class Function, class Key>
struct FrozenFunction<Function<Key>, Key> {
  using type = Function<Frozen<Key>>;
};
template <class Function, class Key>
using FrozenFunctionOf = typename FrozenFunction<Function, Key>::type;

template <class To, class From>
To frozen_function(const From& from) {
  if constexpr (std::is_same_v<To, From>) {
    return from;
  } else {
    return To();
  }
}

template <class To, class From>
To empty_ordered(const From& from, FreezeContext& context) {
  return To(frozen_function<typename To::key_compare>(from.key_comp()), context.allocator());
}
template <class To, class From>
To empty_unordered(const From& from, FreezeContext& context) {
  return To(from.size(), frozen_function<typename To::hasher>(from.hash_function()),
            frozen_function<typename To::key_equal>(from.key_eq()), context.allocator());
}

template <class From, class To>
struct FrozenSequence {
  using frozen = To;
  static To freeze(const From& from, FreezeContext& context) {
    To to(context.allocator());
    for (const auto& element : from) {
      to.emplace_back(context.copy(element));
    }
    return to;
  }
};

// Sets and maps; `kEmpty` makes the container.
template <class From, class To, To (*kEmpty)(const From&, FreezeContext&)>
struct FrozenAssociative {
  using frozen = To;
  static To freeze(const From& from, FreezeContext& context) {
    To to = kEmpty(from, context);
    for (const auto& element : from) {
      if constexpr (requires { typename From::mapped_type; }) {
        to.emplace_hint(to.end(), context.copy(element.first), context.copy(element.second));
      } else {
        to.emplace_hint(to.end(), context.copy(element));
      }
    }
    return to;
  }
};
template <class From, class To>
using FrozenOrdered = FrozenAssociative<From, To, &empty_ordered<To, From>>;
template <class From, class To>
using FrozenUnordered = FrozenAssociative<From, To, &empty_unordered<To, From>>;

template <class T>
struct FrozenPointerTo : FrozenToPointer {
  static_assert(!std::is_array_v<T>,
                "freeze_copy: a pointer to an array does not say how long it "
                "is; use a std::vector");
  using frozen = ImmortalPtr<const Frozen<T>>;
};

}  // namespace internal

template <class T>
  requires(std::is_object_v<T> && !internal::kIsCharacter<std::remove_cv_t<T>>)
struct FreezeTraits<T*> : internal::FrozenPointerTo<T> {
  static auto freeze(T* from, FreezeContext& context) {
    return context.pointer(static_cast<const std::remove_cv_t<T>*>(from));
  }
};

template <class T>
struct FreezeTraits<std::shared_ptr<T>> : internal::FrozenPointerTo<T> {
  static auto freeze(const std::shared_ptr<T>& from, FreezeContext& context) {
    return context.pointer(static_cast<const std::remove_cv_t<T>*>(from.get()));
  }
};

template <class T>
struct FreezeTraits<std::weak_ptr<T>> : internal::FrozenPointerTo<T> {
  static auto freeze(const std::weak_ptr<T>& from, FreezeContext& context) {
    return context.pointer(static_cast<const std::remove_cv_t<T>*>(from.lock().get()));
  }
};

template <class T, class Deleter>
struct FreezeTraits<std::unique_ptr<T, Deleter>> : internal::FrozenPointerTo<T> {
  static auto freeze(const std::unique_ptr<T, Deleter>& from, FreezeContext& context) {
    return context.pointer(static_cast<const std::remove_cv_t<T>*>(from.get()));
  }
};

template <class Char, class Traits, class Allocator>
struct FreezeTraits<std::basic_string<Char, Traits, Allocator>> {
  using frozen = std::pmr::basic_string<Char, Traits>;
  static frozen freeze(const std::basic_string<Char, Traits, Allocator>& from,
                       FreezeContext& context) {
    return frozen(from.data(), from.size(), context.allocator());
  }
};

template <class T, class Allocator>
struct FreezeTraits<std::vector<T, Allocator>> {
  using frozen = std::pmr::vector<Frozen<T>>;
  static frozen freeze(const std::vector<T, Allocator>& from, FreezeContext& context) {
    frozen to(context.allocator());
    if constexpr (std::is_same_v<T, bool>) {
      to.assign(from.begin(), from.end());
    } else if (!from.empty()) {
      to.reserve(from.size());
      context.add_elements(from.data(), {from.size(), &FreezeContext::kTypeOf<T>,
                                         reinterpret_cast<std::byte*>(to.data())});
      if constexpr (internal::kAsIs<T>) {
        to.assign(from.begin(), from.end());
      } else {
        for (const auto& element : from) {
          to.emplace_back(context.copy(element));
        }
      }
    }
    return to;
  }
};

template <class T, class A>
struct FreezeTraits<std::deque<T, A>>
    : internal::FrozenSequence<std::deque<T, A>, std::pmr::deque<Frozen<T>>> {};
template <class T, class A>
struct FreezeTraits<std::list<T, A>>
    : internal::FrozenSequence<std::list<T, A>, std::pmr::list<Frozen<T>>> {};

template <class K, class C, class A>
struct FreezeTraits<std::set<K, C, A>>
    : internal::FrozenOrdered<std::set<K, C, A>,
                              std::pmr::set<Frozen<K>, internal::FrozenFunctionOf<C, K>>> {};
template <class K, class C, class A>
struct FreezeTraits<std::multiset<K, C, A>>
    : internal::FrozenOrdered<std::multiset<K, C, A>,
                              std::pmr::multiset<Frozen<K>, internal::FrozenFunctionOf<C, K>>> {};
template <class K, class V, class C, class A>
struct FreezeTraits<std::map<K, V, C, A>>
    : internal::FrozenOrdered<
          std::map<K, V, C, A>,
          std::pmr::map<Frozen<K>, Frozen<V>, internal::FrozenFunctionOf<C, K>>> {};
template <class K, class V, class C, class A>
struct FreezeTraits<std::multimap<K, V, C, A>>
    : internal::FrozenOrdered<
          std::multimap<K, V, C, A>,
          std::pmr::multimap<Frozen<K>, Frozen<V>, internal::FrozenFunctionOf<C, K>>> {};
template <class K, class H, class E, class A>
struct FreezeTraits<std::unordered_set<K, H, E, A>>
    : internal::FrozenUnordered<std::unordered_set<K, H, E, A>,
                                std::pmr::unordered_set<Frozen<K>, internal::FrozenFunctionOf<H, K>,
                                                        internal::FrozenFunctionOf<E, K>>> {};
template <class K, class H, class E, class A>
struct FreezeTraits<std::unordered_multiset<K, H, E, A>>
    : internal::FrozenUnordered<
          std::unordered_multiset<K, H, E, A>,
          std::pmr::unordered_multiset<Frozen<K>, internal::FrozenFunctionOf<H, K>,
                                       internal::FrozenFunctionOf<E, K>>> {};
template <class K, class V, class H, class E, class A>
struct FreezeTraits<std::unordered_map<K, V, H, E, A>>
    : internal::FrozenUnordered<
          std::unordered_map<K, V, H, E, A>,
          std::pmr::unordered_map<Frozen<K>, Frozen<V>, internal::FrozenFunctionOf<H, K>,
                                  internal::FrozenFunctionOf<E, K>>> {};
template <class K, class V, class H, class E, class A>
struct FreezeTraits<std::unordered_multimap<K, V, H, E, A>>
    : internal::FrozenUnordered<
          std::unordered_multimap<K, V, H, E, A>,
          std::pmr::unordered_multimap<Frozen<K>, Frozen<V>, internal::FrozenFunctionOf<H, K>,
                                       internal::FrozenFunctionOf<E, K>>> {};

template <class T>
struct FreezeTraits<std::optional<T>> {
  using frozen = std::optional<Frozen<T>>;
  static frozen freeze(const std::optional<T>& from, FreezeContext& context) {
    return from ? frozen(std::in_place, context.copy(*from)) : frozen();
  }
};

template <class... Ts>
struct FreezeTraits<std::variant<Ts...>> {
  using frozen = std::variant<Frozen<Ts>...>;
  static frozen freeze(const std::variant<Ts...>& from, FreezeContext& context) {
    return freeze_alternative<0>(from, context);
  }

 private:
  template <std::size_t kIndex>
  static frozen freeze_alternative(const std::variant<Ts...>& from, FreezeContext& context) {
    if constexpr (kIndex == sizeof...(Ts)) {
      throw std::bad_variant_access();  // valueless
    } else {
      return from.index() == kIndex
                 ? frozen(std::in_place_index<kIndex>, context.copy(std::get<kIndex>(from)))
                 : freeze_alternative<kIndex + 1>(from, context);
    }
  }
};

template <class First, class Second>
struct FreezeTraits<std::pair<First, Second>> {
  using frozen = std::pair<Frozen<First>, Frozen<Second>>;
  static frozen freeze(const std::pair<First, Second>& from, FreezeContext& context) {
    return frozen{context.copy(from.first), context.copy(from.second)};  // in this order
  }
};

template <class... Ts>
struct FreezeTraits<std::tuple<Ts...>> {
  using frozen = std::tuple<Frozen<Ts>...>;
  static frozen freeze(const std::tuple<Ts...>& from, FreezeContext& context) {
    return std::apply(
        [&context](const Ts&... elements) { return frozen{context.copy(elements)...}; }, from);
  }
};

template <class T, std::size_t kSize>
struct FreezeTraits<std::array<T, kSize>>
    : std::conditional_t<internal::kAsIs<T>, internal::CopiedAsIs, internal::CopiedInDepth> {
  using frozen = std::array<Frozen<T>, kSize>;
  static frozen freeze(const std::array<T, kSize>& from, FreezeContext& context) {
    if constexpr (internal::kAsIs<T>) {
      return from;
    } else {
      return std::apply(
          [&context](const auto&... elements) { return frozen{context.copy(elements)...}; }, from);
    }
  }
};

}  // namespace cowshed
