#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <cowshed/base/type_id.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/ref.h>

// Functions that a worker finds by name after exec, in this program or in another.  A program that
// calls start<function>() (workers.h) registers the function.  A program that only runs it for
// another one registers it in any of its source files:
//
//   COWSHED_WORKER(search);
//
// The name includes the function's namespaces and parameters, as the linker knows it.  Declare the
// function identically in both programs.
namespace cowshed {

// The first argument of a worker's function, if it takes one.
struct Worker {
  int rank;  // 0 to count - 1
  int count;
};

namespace internal {

// Called in the worker: reads the arguments, writes the value, returns the exit code.
using WorkerCall = int(const Worker& self, Decoder& arguments, Encoder& value);

// A registered function.  Static; its constructor registers it before main().
struct WorkerFunction {
  WorkerFunction(const char* name, std::uint64_t layout, WorkerCall* call) noexcept;

  const char* name;      // mangled
  std::uint64_t layout;  // a hash of the sizes and alignments of parameters and value
  WorkerCall* call;
  const WorkerFunction* next;
};

// Errors: not_registered; invalid_argument (two functions have this name, as in the unnamed
// namespaces of two files, or its types are defined differently here).
Expected<const WorkerFunction*> find_worker_function(const std::string& name, std::uint64_t layout);

template <class T>
struct IsRef : std::false_type {};
template <class T>
struct IsRef<Ref<T>> : std::true_type {
  using Object = T;
  static constexpr bool kSpawnSafe = spawn_safe<T>;
};
template <class T>  // an array: each process makes the span itself
struct IsRef<Ref<std::span<const T>>> : std::true_type {
  using Object = std::span<const T>;
  static constexpr bool kSpawnSafe = spawn_safe<T>;
};

// Whether all Refs in a type, as in vector<Ref<T>> or array<Ref<T>, 2>, are to spawn_safe types.
template <class T>
struct RefsSpawnSafe : std::true_type {};
template <template <class...> class Of, class... Ts>
struct RefsSpawnSafe<Of<Ts...>> : std::conjunction<RefsSpawnSafe<Ts>...> {};
template <template <class, std::size_t> class Of, class T, std::size_t size>
struct RefsSpawnSafe<Of<T, size>> : RefsSpawnSafe<T> {};
template <class T>
struct RefsSpawnSafe<Ref<T>> : std::bool_constant<IsRef<Ref<T>>::kSpawnSafe> {};

// How an argument is sent: as its value, or as a Ref that arrives as the object.
enum class Passing : unsigned char { value, reference };

// An argument in the worker, for a parameter of this type; and how the parent encodes it.
template <class Parameter>
class ArgumentOf {
 public:
  using T = std::remove_cvref_t<Parameter>;
  static constexpr bool kByValue = Codable<T>;
  // False if the function could change the object, which is published and immutable.
  static constexpr bool kByReference = std::is_convertible_v<const T&, Parameter>;

  template <class Argument>
  static constexpr Passing kPassing =
      IsRef<Argument>::value && !IsRef<T>::value ? Passing::reference : Passing::value;

  template <class Argument>
  static void encode(Encoder& to, const Argument& argument) {
    to.put(kPassing<Argument>);
    if constexpr (kPassing<Argument> == Passing::reference || std::is_same_v<T, Argument>)
      to.put(argument);
    else to.put<T>(T(argument));
  }

  void read(Decoder& from) {
    switch (from.take<Passing>()) {
      case Passing::value:
        if constexpr (kByValue) {
          value_.emplace(from.take<T>());
          return;
        }
        break;
      case Passing::reference:
        if constexpr (kByReference) {
          object_ = &*from.take<Ref<T>>();  // throws BadRef
          return;
        }
        break;
    }
    throw_damaged();
  }

  Parameter get() {
    if constexpr (kByReference) {
      if (object_ != nullptr) return static_cast<Parameter>(*object_);
    }
    if constexpr (kByValue && std::is_reference_v<Parameter>)
      return static_cast<Parameter>(*value_);
    else if constexpr (kByValue) return *std::move(value_);
    else throw_damaged();
  }

 private:
  struct Never {};
  const T* object_ = nullptr;
  std::optional<std::conditional_t<kByValue, T, Never>> value_;
};

template <class T>
constexpr std::uint64_t layout_of(std::uint64_t hash) {
  if constexpr (std::is_void_v<T>) return hash;
  else return mix_hash(mix_hash(hash, sizeof(T)), alignof(T));
}

// Whether a worker has a value.  An int is its exit code, as main()'s is.
template <class R>
inline constexpr bool kHasValue = !std::is_void_v<R> && !std::is_same_v<R, int>;

template <class R>
using ValueOf = std::conditional_t<kHasValue<R>, R, void>;

// Calls `call`.  Writes its value and returns 0, or returns its exit code.
template <class R, class Call>
int keep_value(Encoder& value, Call&& call) {
  if constexpr (std::is_void_v<R>) {
    call();
    return 0;
  } else if constexpr (std::is_same_v<R, int>) {
    return call();
  } else {
    static_assert(Codable<R>,
                  "a worker's value cannot be sent: return what is trivially copyable, a string or "
                  "a container, or specialise cowshed::Codec<T>");
    value.put(static_cast<const R&>(call()));
    return 0;
  }
}

// The types in a function's signature, without the `const Worker&` that may come first.
template <class R, class... Ps>
struct Parts {
  using Value = R;
  static constexpr bool kTakesWorker = false;
  static constexpr std::size_t kParameters = sizeof...(Ps);
  template <std::size_t i>
  using Parameter = std::tuple_element_t<i, std::tuple<Ps...>>;
  static constexpr std::uint64_t layout() {
    std::uint64_t hash = layout_of<R>(sizeof...(Ps));
    ((hash = layout_of<std::remove_cvref_t<Ps>>(hash)), ...);
    return hash;
  }
  template <class Function>
  static int call(const Function& function, const Worker&, Decoder& from, Encoder& value) {
    std::tuple<ArgumentOf<Ps>...> arguments;
    std::apply([&](auto&... each) { (each.read(from), ...); }, arguments);
    return keep_value<std::remove_cvref_t<R>>(value, [&]() -> R {
      return std::apply([&](auto&... each) -> R { return function(each.get()...); }, arguments);
    });
  }
};

template <class R, class... Ps>
struct Parts<R, const Worker&, Ps...> : Parts<R, Ps...> {
  static constexpr bool kTakesWorker = true;
  template <class Function>
  static int call(const Function& function, const Worker& self, Decoder& from, Encoder& value) {
    const auto with_worker = [&](Ps... each) -> R {
      return function(self, std::forward<Ps>(each)...);
    };
    return Parts<R, Ps...>::call(with_worker, self, from, value);
  }
};

template <class Function>
struct Signature;
template <class R, class... Ps>
struct Signature<R (*)(Ps...)> : Parts<R, Ps...> {};
template <class R, class... Ps>
struct Signature<R (*)(Ps...) noexcept> : Parts<R, Ps...> {};
template <class F, class R, class... Ps>
struct Signature<R (F::*)(Ps...) const> : Parts<R, Ps...> {};
template <class Closure>
  requires requires { &Closure::operator(); }
struct Signature<Closure> : Signature<decltype(&Closure::operator())> {};

template <auto function, class Type>
struct NameOf {};

template <auto function>
class Registered {
 public:
  using Parts = Signature<std::remove_cv_t<decltype(function)>>;

  static const char* name() noexcept { return typeid(NameOf<function, decltype(function)>).name(); }
  static const WorkerFunction& entry() noexcept { return instance; }

 private:
  static int call(const Worker& self, Decoder& arguments, Encoder& value) {
    return Parts::call(function, self, arguments, value);
  }
  // Hidden, because each copy of the library in a process has its own list.
  [[gnu::visibility("hidden")]] static inline const WorkerFunction instance{name(), Parts::layout(),
                                                                            &call};
};

}  // namespace internal
}  // namespace cowshed

#define COWSHED_JOIN_2(a, b) a##b
#define COWSHED_JOIN(a, b) COWSHED_JOIN_2(a, b)
// An overload for each function, because no standard macro counts.
#define COWSHED_WORKER(...)                                                        \
  [[gnu::used]] static const void* COWSHED_JOIN(                                   \
      cowshed_worker_, __LINE__)(::cowshed::internal::Registered<(__VA_ARGS__)>) { \
    return &::cowshed::internal::Registered<(__VA_ARGS__)>::entry();               \
  }                                                                                \
  static_assert(true)
