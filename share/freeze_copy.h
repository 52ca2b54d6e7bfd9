#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <optional>
#include <ranges>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <cowshed/base/type_id.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/immortal_ptr.h>

// Copies a graph of ordinary objects into an arena, for programs that build their data elsewhere:
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
// These types need no traits, and are copied in depth:
//   trivially copyable types                 as they are (a struct with raw pointers needs traits,
//                                            because C++ cannot see its members)
//   std::string, vector, deque, list,        their std::pmr counterparts, in the arena
//   [unordered_](multi)map and (multi)set    (std::less<K>, std::hash<K>, F<K> become F<Frozen<K>>)
//   other containers with an allocator       the same
//   optional, variant, pair, tuple, array    themselves, of frozen elements
//   shared_ptr, unique_ptr, weak_ptr, T*     ImmortalPtr<const Frozen<T>>; null when expired
// Any other type without traits does not compile.  Nor do string_view, span, void* and char*, which
// do not say what they point to, or how much of it; nor F<K> with state that F<Frozen<K>> lacks.
//
// Keys: an order or a hash may follow pointers in its keys, but not to other such containers.  An
// object that has such a container is copied twice, because all others must exist before; if
// Frozen<T> then has no noexcept move constructor, it is invalid_argument.  So it is if a container
// would lose elements, because its order or hash takes copies of different keys for the same.
//
// Identity: an object that several pointers lead to is copied once.  A pointer to an element of a
// vector fails with invalid_argument: keep such elements by std::shared_ptr.  A pointer to another
// part of an object, such as a member or an element of a map, gets a copy of that part.
// Polymorphic types: Base's traits say what a Derived becomes; without, it is invalid_argument:
//     static ImmortalPtr<const FrozenBase> pointer(const Base& object, FreezeContext& context) {
//       if (auto* leaf = dynamic_cast<const Leaf*>(&object)) return context.pointer(leaf);
//       return context.exact_pointer(&object);  // the object is a Base
//     }
namespace cowshed {

class FreezeContext;

namespace internal {

template <class T>
inline constexpr bool kNever = false;

// Types that are trivially copyable, but refer to objects that must be copied, too.
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
struct FrozenToPointer {};

}  // namespace internal

// The customisation point: `frozen`, the type in the arena, and
// `static frozen freeze(const T& from, FreezeContext& context)`, which returns the copy.  Declare
// it before its use: if types refer to each other, define freeze() after all the traits.
template <class T>
struct FreezeTraits {
  static_assert(internal::kNever<T>,
                "freeze_copy does not know this type: specialise cowshed::FreezeTraits<T> for it "
                "as share/freeze_copy.h shows");
  using frozen = void;
};

template <class T>
using Frozen = typename FreezeTraits<std::remove_cv_t<T>>::frozen;

// Passed to each freeze().  For one thread.  Construct the result from what it returns.  A std::pmr
// container that is assigned to would keep its own memory, which may be outside the arena.
class FreezeContext {
 public:
  // Returns a frozen copy.  `from` must exist until freeze_copy() returns, so it is no temporary
  // and no local variable.  Objects behind pointers are allocated now and constructed later, so
  // that cycles and long lists do not recurse: do not dereference the pointers in the result.
  template <class T>
  Frozen<T> copy(const T& from) {
    return FreezeTraits<T>::freeze(from, *this);
  }
  template <class T>
  Frozen<T> copy(const T&& temporary) = delete;

  // Returns where the frozen copy of *object is or will be; null for null.
  template <class T>
  ImmortalPtr<const Frozen<T>> pointer(const T* object);
  template <class T>
  ImmortalPtr<const Frozen<T>> exact_pointer(const T* object);

  // The arena's allocator, for objects that freeze() builds itself.
  std::pmr::polymorphic_allocator<> allocator() const noexcept { return resource_; }

  FreezeContext(const FreezeContext&) = delete;
  FreezeContext& operator=(const FreezeContext&) = delete;

 private:
  template <class T>
  friend struct FreezeTraits;
  template <class T>
  friend auto freeze_copy(const Arena& arena, const T& root);

  struct Type {  // of a source; two types differ if their addresses do
    std::size_t source_size;
    std::size_t size;
    std::size_t alignment;
    void (*construct)(void* target, const void* source, FreezeContext& context);
    bool (*construct_again)(void* target, const void* source, FreezeContext& context);
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
      [](void* target, const void* source, FreezeContext& context) {
        constexpr bool kMoves = std::is_nothrow_move_constructible_v<Frozen<T>>;  // no copy
        if constexpr (kMoves) {
          Frozen<T> copy(FreezeTraits<T>::freeze(*static_cast<const T*>(source), context));
          std::destroy_at(static_cast<Frozen<T>*>(target));
          ::new (target) Frozen<T>(std::move(copy));
        }
        return kMoves;
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
  };
  struct Failure {
    Error error;
  };

  explicit FreezeContext(std::pmr::memory_resource* resource) : resource_(resource) {}
  ~FreezeContext();  // frees all copies, unless finish() was reached

  void* target_of(const void* source, const Type& type);
  bool is_element(const Key& key) const;
  void finish();
  bool all_constructed() const { return constructed_ == targets_.size(); }
  [[noreturn]] static void refuse(const std::string& why);
  [[noreturn]] static void refuse_derived(std::string_view base, const char* dynamic_type);
  [[noreturn]] static void refuse_loss(std::string_view container);

  std::pmr::memory_resource* resource_;
  std::unordered_map<Key, void*, KeyHash> memo_;
  std::vector<Target> targets_;  // in the order of their construction
  std::size_t constructed_ = 0;
  std::size_t pointers_ = 0;  // that copy() and pointer() have returned, ever
  bool left_empty_ = false;   // a container of the object that is being constructed
  bool finished_ = false;
  std::map<const void*, Elements, std::less<>> vectors_;  // by the address of the first element
};

template <class T>
ImmortalPtr<const Frozen<T>> FreezeContext::pointer(const T* object) {
  if (object == nullptr) return nullptr;
  if constexpr (requires { FreezeTraits<T>::pointer(*object, *this); })
    return FreezeTraits<T>::pointer(*object, *this);
  else return exact_pointer(object);
}

template <class T>
ImmortalPtr<const Frozen<T>> FreezeContext::exact_pointer(const T* object) {
  if (object == nullptr) return nullptr;
  if constexpr (std::is_polymorphic_v<T> && !std::is_final_v<T>) {
    if (typeid(*object) != typeid(T)) refuse_derived(type_name<T>(), typeid(*object).name());
  }
  return ImmortalPtr<const Frozen<T>>(static_cast<const Frozen<T>*>(target_of(object, kTypeOf<T>)));
}

// Copies `root`, or the object that it points to if it is a pointer, and all objects that it leads
// to.  Returns the frozen root; null for a null pointer.  The graph must not change meanwhile, and
// may be destroyed afterwards.  On an error all copies are freed.  Several threads may copy
// different graphs to one arena.  Errors: those of ArenaBadAlloc, invalid_argument (see above).  An
// exception of a freeze() of yours passes through.
template <class T>
auto freeze_copy(const Arena& arena, const T& root) {
  const auto copy = [&root](FreezeContext& context) {
    if constexpr (std::is_base_of_v<internal::FrozenToPointer, FreezeTraits<T>>)
      return context.copy(root).get();
    else return context.pointer(&root).get();
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

template <class C>
concept AllocatingContainer = requires(const C& container) {
  typename C::value_type;
  typename C::allocator_type;
  container.size();
};

template <class C, class T>
concept ElementOf = std::is_same_v<T, typename C::value_type> || requires {
  requires std::is_same_v<T, typename C::key_type>;
} || requires { requires std::is_same_v<T, typename C::mapped_type>; };

template <class C>
constexpr auto frozen_value() {
  if constexpr (requires { typename C::mapped_type; }) {
    return std::type_identity<
        std::pair<const Frozen<typename C::key_type>, Frozen<typename C::mapped_type>>>();
  } else {
    return std::type_identity<Frozen<typename C::value_type>>();
  }
}

// The type of a comparison or hash of keys, as the frozen container needs it.
template <class C, class Function>
struct FrozenFunction : std::type_identity<Function> {};
template <class C, template <class> class Function, class Key>
  requires ElementOf<C, Key>
struct FrozenFunction<C, Function<Key>> : std::type_identity<Function<Frozen<Key>>> {};

// The frozen container's template argument in place of this one of C.
template <class C, class Argument>
constexpr auto frozen_argument() {
  if constexpr (std::is_same_v<Argument, typename C::allocator_type>) {
    return std::type_identity<
        std::pmr::polymorphic_allocator<typename decltype(frozen_value<C>())::type>>();
  } else if constexpr (ElementOf<C, Argument>) {
    return std::type_identity<Frozen<Argument>>();
  } else {
    return FrozenFunction<C, Argument>();
  }
}

template <class To, class From>
To frozen_function(const From& from) {
  constexpr bool kKeepsState = std::is_constructible_v<To, const From&>;
  static_assert(kKeepsState || std::is_empty_v<From>,
                "freeze_copy would lose the state of this F<K>: make F<Frozen<K>> of it");
  if constexpr (kKeepsState) return To(from);
  else return To();
}

// Whether the standard's orders and hashes of this type follow no pointer to an object.
template <class T>
inline constexpr bool kIsShallow = std::is_scalar_v<T>;
template <class T>
inline constexpr bool kIsShallow<ImmortalPtr<T>> = true;
template <class... Ts>
inline constexpr bool kIsShallow<std::basic_string<Ts...>> = true;
template <template <class...> class Tuple, class... Ts>
  requires(requires { std::tuple_size<Tuple<Ts...>>::value; })
inline constexpr bool kIsShallow<Tuple<Ts...>> = (kIsShallow<Ts> && ...);

template <class F>
inline constexpr bool kIsStandard = false;
template <template <class> class F, class T>
inline constexpr bool kIsStandard<F<T>> =
    std::is_same_v<F<T>, std::less<T>> || std::is_same_v<F<T>, std::hash<T>> ||
    std::is_same_v<F<T>, std::equal_to<T>>;
template <class C>
concept ShallowKeys = kIsShallow<typename C::key_type> &&
                      (kIsStandard<typename C::key_compare> ||
                       (kIsStandard<typename C::hasher> && kIsStandard<typename C::key_equal>));

template <class T>
struct FrozenPointerTo : FrozenToPointer {
  using frozen = ImmortalPtr<const Frozen<T>>;
};

template <class P>  // not to an array, because that does not say how long the array is
concept SmartPointer = !std::is_trivially_copyable_v<P> && requires(const P& pointer) {
  typename P::element_type;
  pointer.get();
  requires !requires { pointer[0]; };
};

}  // namespace internal

template <class T>
  requires(std::is_object_v<T> && !std::is_array_v<T> &&
           !internal::kIsCharacter<std::remove_cv_t<T>>)
struct FreezeTraits<T*> : internal::FrozenPointerTo<T> {
  static auto freeze(T* from, FreezeContext& context) {
    return context.pointer(static_cast<const std::remove_cv_t<T>*>(from));
  }
};

template <internal::SmartPointer P>
struct FreezeTraits<P> : internal::FrozenPointerTo<typename P::element_type> {
  static auto freeze(const P& from, FreezeContext& context) {
    return context.pointer(
        static_cast<const std::remove_cv_t<typename P::element_type>*>(from.get()));
  }
};

template <class T>
struct FreezeTraits<std::weak_ptr<T>> : FreezeTraits<std::shared_ptr<T>> {
  static auto freeze(const std::weak_ptr<T>& from, FreezeContext& context) {
    const auto locked = from.lock();
    return context.copy(locked);
  }
};

template <template <class...> class C, class... Arguments>
  requires internal::AllocatingContainer<C<Arguments...>>
struct FreezeTraits<C<Arguments...>> {
  using From = C<Arguments...>;
  using frozen = C<typename decltype(internal::frozen_argument<From, Arguments>())::type...>;

  static frozen freeze(const From& from, FreezeContext& context) {
    using T = typename From::value_type;
    if constexpr (requires { frozen(from.data(), from.size(), context.allocator()); }) {
      return frozen(from.data(), from.size(), context.allocator());  // a string
    } else {
      frozen to = make_empty(from, context);
      if constexpr (requires { typename From::key_type; }) {
        fill_by_key(to, from, context);
      } else {
        if constexpr (std::ranges::contiguous_range<const From>)
          context.vectors_.try_emplace(from.data(), from.size(), &FreezeContext::kTypeOf<T>);
        if constexpr (internal::kAsIs<T>) {
          to.assign(from.begin(), from.end());
        } else {
          if constexpr (requires { to.reserve(from.size()); }) to.reserve(from.size());
          for (const auto& element : from) to.emplace_back(context.copy(element));
        }
      }
      return to;
    }
  }

 private:
  static void fill_by_key(frozen& to, const From& from, FreezeContext& context) {
    bool may_fill = true;
    for (const auto& element : from) {
      const std::size_t pointers = context.pointers_;
      const auto add = [&](auto key, const auto&... value) {
        if (!internal::ShallowKeys<frozen> && context.pointers_ != pointers)
          may_fill = may_fill && context.all_constructed();
        // Also if it must not be filled yet, copy(value) finds what that leads to.
        if (may_fill) to.emplace_hint(to.end(), std::move(key), context.copy(value)...);
        else (static_cast<void>(context.copy(value)), ...);
      };
      if constexpr (requires { typename From::mapped_type; })
        add(context.copy(element.first), element.second);
      else add(context.copy(element));
    }
    context.left_empty_ = context.left_empty_ || !may_fill;
    if (!may_fill) to.clear();
    else if (to.size() != from.size()) FreezeContext::refuse_loss(type_name<From>());
  }
  static frozen make_empty(const From& from, FreezeContext& context) {
    using internal::frozen_function;
    if constexpr (requires { from.hash_function(); }) {
      return frozen(from.size(), frozen_function<typename frozen::hasher>(from.hash_function()),
                    frozen_function<typename frozen::key_equal>(from.key_eq()),
                    context.allocator());
    } else if constexpr (requires { from.key_comp(); }) {
      return frozen(frozen_function<typename frozen::key_compare>(from.key_comp()),
                    context.allocator());
    } else {
      return frozen(context.allocator());
    }
  }
};

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

// Pairs and tuples.
template <template <class...> class Tuple, class... Ts>
  requires(requires { std::tuple_size<Tuple<Ts...>>::value; })
struct FreezeTraits<Tuple<Ts...>> {
  using frozen = Tuple<Frozen<Ts>...>;
  static frozen freeze(const Tuple<Ts...>& from, FreezeContext& context) {
    return std::apply(
        [&context](const Ts&... elements) { return frozen{context.copy(elements)...}; }, from);
  }
};

template <class T, std::size_t kSize>
  requires(!internal::kAsIs<T>)
struct FreezeTraits<std::array<T, kSize>> {
  using frozen = std::array<Frozen<T>, kSize>;
  static frozen freeze(const std::array<T, kSize>& from, FreezeContext& context) {
    return std::apply(
        [&context](const auto&... elements) { return frozen{context.copy(elements)...}; }, from);
  }
};

}  // namespace cowshed
