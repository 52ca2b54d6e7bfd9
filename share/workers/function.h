#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
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

// Functions that another execution of this program, or another program, finds by name.  Whoever
// starts one with start<function>() (workers.h) has it registered; a program that only runs it for
// others says so, in any of its files:
//
//   COWSHED_WORKER(search);
//
// The name is the function's own with its namespaces and parameters, as the linker knows it: have
// the same declaration in both programs.
namespace cowshed {

// What a worker knows of itself.
struct Worker {
  int rank;  // 0 to count - 1
  int count;
};

namespace internal {

// Runs in the worker: arguments from one side, the value to the other; returns the exit code.
using WorkerCall = int(const Worker& self, Decoder& arguments, Encoder& value);

// In static memory, entered before main().
struct WorkerFunction {
  WorkerFunction(const char* name, std::uint64_t layout, WorkerCall* call) noexcept;

  const char* name;      // mangled
  std::uint64_t layout;  // of parameters and value: sizes and alignments
  WorkerCall* call;
  const WorkerFunction* next;
};

// Errors: not_registered; invalid_argument (two functions of this name, as of two files' unnamed
// namespaces; or other definitions of its types).
Expected<const WorkerFunction*> find_worker_function(const std::string& name, std::uint64_t layout);

template <class T>
struct IsRef : std::false_type {};
template <class T>
struct IsRef<Ref<T>> : std::true_type {
  using Object = T;
  static constexpr bool kSpawnSafe = spawn_safe<T>;
};
template <class T>  // an array: the span is made anew in each process
struct IsRef<Ref<std::span<const T>>> : std::true_type {
  using Object = std::span<const T>;
  static constexpr bool kSpawnSafe = spawn_safe<T>;
};

// Whether all references in it, as in a vector<Ref<T>> or a Channel<Ref<T>>, are to types that mean
// the same in a spawned worker.
template <class T>
struct RefsSpawnSafe : std::true_type {};
template <template <class...> class Of, class... Ts>
struct RefsSpawnSafe<Of<Ts...>> : std::conjunction<RefsSpawnSafe<Ts>...> {};
template <class T, std::size_t size>
struct RefsSpawnSafe<std::array<T, size>> : RefsSpawnSafe<T> {};
template <class T>
struct RefsSpawnSafe<Ref<T>> : std::bool_constant<IsRef<Ref<T>>::kSpawnSafe> {};

// A parameter of a worker's function, and how its argument arrives: by value or by reference.
enum class Passing : unsigned char { value, reference };

template <class Parameter>
class Arrived {
 public:
  using T = std::remove_cvref_t<Parameter>;
  static constexpr bool kByValue = Codable<T>;
  // A published object cannot be had by reference where the function would change it.
  static constexpr bool kByReference = std::is_convertible_v<const T&, Parameter>;

  template <class Argument>
  static constexpr Passing kPassing =
      IsRef<Argument>::value && !IsRef<T>::value ? Passing::reference : Passing::value;

  template <class Argument>
  static void encode(Encoder& to, const Argument& argument) {
    to.put(kPassing<Argument>);
    encode_itself(to, argument);
  }
  template <class Argument>
  static void encode_itself(Encoder& to, const Argument& argument) {
    if constexpr (kPassing<Argument> == Passing::reference || std::is_same_v<T, Argument>)
      to.put(argument);
    else to.put<T>(T(argument));
  }

  explicit Arrived(Decoder& from) {
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

// A worker's value: none for void, and for int, which is the exit code as main()'s is.
template <class R>
inline constexpr bool kHasValue = !std::is_void_v<R> && !std::is_same_v<R, int>;

template <class R>
using ValueOf = std::conditional_t<kHasValue<R>, R, void>;

// Calls `call`, puts its value or returns its exit code.
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

// The parts of a function's type, of which `const Worker&` may come first.
template <class Function>
struct Signature;

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
    std::tuple<Arrived<Ps>...> arguments{Arrived<Ps>(from)...};  // braces: in this order
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
  // Hidden: each copy of the library in a process has its own list.
  [[gnu::visibility("hidden")]] static inline const WorkerFunction instance{name(), Parts::layout(),
                                                                            &call};
};

}  // namespace internal
}  // namespace cowshed

#define COWSHED_JOIN_2(a, b) a##b
#define COWSHED_JOIN(a, b) COWSHED_JOIN_2(a, b)
#define COWSHED_WORKER(...)                                                              \
  [[maybe_unused]] static const void* const COWSHED_JOIN(cowshed_worker_, __COUNTER__) = \
      &::cowshed::internal::Registered<(__VA_ARGS__)>::entry()
