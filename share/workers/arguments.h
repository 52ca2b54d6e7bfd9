#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/type_id.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/ref.h>
#include <cowshed/share/workers/function.h>
#include <cowshed/share/workers/job.h>

// The arguments of a start(): which are allowed, how they are sent, and how they are counted.
namespace cowshed::internal {

template <class T>
Expected<void> check_argument(const T&) {
  return {};
}
template <class T>
Expected<void> check_argument(const Ref<T>& ref) {
  return ref.get().and_then([](const T* object) { return check_inheritable(object); });
}
template <class T>
Expected<void> check_argument(const Ref<std::span<const T>>& ref) {
  return ref.get().and_then([](const auto* array) { return check_inheritable(array->data()); });
}

template <class... Args>
Expected<void> check_arguments(const Args&... args) {
  Expected<void> checked;
  ((checked = checked ? check_argument(args) : checked), ...);
  return checked;
}

// Counts the arguments of one start(), see transfer_report.h.
class ArgumentCounter {
 public:
  ArgumentCounter(std::string_view name, int workers)
      : counter_("launch", name), workers_(static_cast<std::uint64_t>(workers)) {}
  template <class T>
  void add(TransferKind kind, std::uint64_t bytes) const {
    counter_.row(type_name<T>(), kind).add(workers_, bytes * workers_, workers_);
  }

 private:
  TransferCounter counter_;
  std::uint64_t workers_;
};

// The size of the object that a Ref refers to.
template <class T>
std::uint64_t bytes_of(const T&) {
  return sizeof(T);
}
template <class T>
std::uint64_t bytes_of(const std::span<const T>& array) {
  return array.size_bytes();
}

template <class Parameter, class Argument>
void encode_argument(const ArgumentCounter& counter, Encoder& to, const Argument& argument) {
  using To = ArgumentOf<Parameter>;
  const std::uint64_t before = to.written() + sizeof(Passing);  // which is not the user's
  To::encode(to, argument);
  if constexpr (To::template kPassing<Argument> == Passing::reference)
    counter.add<typename To::T>(TransferKind::reference, bytes_of(*argument));
  else counter.add<typename To::T>(TransferKind::value, to.written() - before);
}

template <class Parts, class... Args>
void encode_arguments(const ArgumentCounter& counter, Encoder& to, const Args&... args) {
  [&]<std::size_t... i>(std::index_sequence<i...>) {
    (encode_argument<typename Parts::template Parameter<i>>(counter, to, args), ...);
  }(std::index_sequence_for<Args...>());
}

template <class T>
void count_inherited(const ArgumentCounter& counter, const T&) {
  counter.add<T>(TransferKind::inherited, sizeof(T));
}
template <class T>
void count_inherited(const ArgumentCounter& counter, const Ref<T>& ref) {
  counter.add<T>(TransferKind::reference, bytes_of(*ref));
}

// Fails to compile if the argument cannot be sent to the parameter.
template <class Parameter, class Argument>
constexpr void check_sendable() {
  using To = std::remove_cvref_t<Parameter>;
  if constexpr (IsRef<Argument>::value && !IsRef<To>::value) {
    static_assert(IsRef<Argument>::kSpawnSafe,
                  "this reference's type may hold pointers to code or to the heap, which mean "
                  "nothing in a spawned worker: give its containers ArenaAllocator, see "
                  "spawn_safe.h; or start(options, function, ...), which is for fork alone");
    static_assert(
        std::is_same_v<typename IsRef<Argument>::Object, To> && ArgumentOf<Parameter>::kByReference,
        "the parameter for a Ref<T> is a const T&");
  } else {
    static_assert(!std::is_same_v<To, Arena>,
                  "a worker has every arena that is frozen at its start: pass a Ref to what is "
                  "published in it");
    static_assert(!std::is_pointer_v<To>,
                  "this argument is a pointer, which means nothing in a spawned worker: pass a Ref "
                  "to what is published");
    static_assert(std::is_pointer_v<To> || Codable<To>,
                  "this argument cannot be sent: make it trivially copyable, a string or a "
                  "container, specialise cowshed::Codec<T>, or pass a Ref to it");
    static_assert(RefsSpawnSafe<To>::value,
                  "a reference in this argument has a type that may hold pointers to code, which "
                  "means nothing in a spawned worker: see spawn_safe.h; or start(options, "
                  "function, ...), which is for fork alone");
    static_assert(std::is_convertible_v<const Argument&, To>);
  }
}

template <class Parts, class... Args>
constexpr void check_all_sendable() {
  static_assert(Parts::kParameters == sizeof...(Args),
                "as many arguments as the worker's function has parameters, but for its `const "
                "Worker&`");
  [&]<std::size_t... i>(std::index_sequence<i...>) {
    (check_sendable<typename Parts::template Parameter<i>, Args>(), ...);
  }(std::index_sequence_for<Args...>());
}

}  // namespace cowshed::internal
