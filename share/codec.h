#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <unistd.h>
#include <utility>
#include <variant>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/share/spawn_safe.h>

// Encodes values as bytes, for workers and channels.  Byte order and sizes are this machine's, and
// both processes must have the same definitions of the types.
//
// Encoded as they are: trivially copyable types that are spawn_safe, and so have no pointers.
// Encoded by their elements: strings, the standard's containers, pairs, tuples, arrays, optionals
// and variants.  A Channel is sent as its descriptors.  Specialise Codec for other types, also for
// a set or map whose order or hash has state, so that each value puts at least a byte or a
// descriptor:
//
//   template <>
//   struct cowshed::Codec<Query> {
//     static void encode(Encoder& to, const Query& query) { to.put(query.text).put(query.limit); }
//     static Query decode(Decoder& from) {
//       auto text = from.take<std::string>();  // in the order of encode()
//       return {std::move(text), from.take<int>()};
//     }
//   };
namespace cowshed {

template <class T>
struct Codec {};

class Encoder;
class Decoder;

template <class T>
concept Codable = requires(Encoder& to, Decoder& from, const T& value) {
  Codec<T>::encode(to, value);
  { Codec<T>::decode(from) } -> std::convertible_to<T>;
};

namespace internal {

class Content;  // share/wire/content.h

// Throws the std::runtime_error for bytes that no Encoder wrote.
[[noreturn]] void throw_damaged();

}  // namespace internal

// Writes values.  Many bytes go into a memfd.  Not thread-safe.  All members may throw
// std::bad_alloc, and std::runtime_error if the kernel refuses a memfd or a descriptor.
class Encoder {
 public:
  Encoder() = default;
  static Encoder in_memory();  // never uses a memfd
  static Encoder in_file();    // always uses a memfd
  Encoder(Encoder&&) noexcept = default;
  Encoder& operator=(Encoder&&) noexcept = default;

  template <Codable T>
  Encoder& put(const T& value) {
    Codec<T>::encode(*this, value);
    return *this;
  }
  void put_bytes(const void* data, std::size_t size);
  // The number of elements that follow.
  void put_count(std::uint64_t count) { put_bytes(&count, sizeof count); }
  // The receiver gets a duplicate.  `fd` stays the caller's.
  void put_descriptor(int fd);

  std::uint64_t written() const;  // bytes
  internal::Content finish();     // nothing may be put after it

 private:
  explicit Encoder(std::size_t most_inline);
  internal::Content& content();

  std::shared_ptr<internal::Content> content_;  // not shared: Content is incomplete here
};

// Reads values in the order in which an Encoder wrote them.  Not thread-safe.  All members throw
// std::runtime_error if the bytes do not fit the type, and may throw std::bad_alloc.
class Decoder {
 public:
  explicit Decoder(internal::Content content);
  explicit Decoder(std::shared_ptr<internal::Content> content);
  explicit Decoder(std::span<const std::byte> bytes);  // must outlive the Decoder
  Decoder(Decoder&&) noexcept = default;
  Decoder& operator=(Decoder&&) noexcept = default;

  template <Codable T>
  T take() {
    return Codec<T>::decode(*this);
  }
  // Also throws if bytes are left.
  template <Codable T>
  T take_all() {
    T value = take<T>();
    if (!left_.empty()) internal::throw_damaged();
    return value;
  }
  void take_bytes(void* to, std::size_t size);
  // The number of elements that follow.  Throws if so many elements, of at least `bytes_each` bytes
  // or a descriptor each, cannot follow.
  std::size_t take_count(std::size_t bytes_each = 1);
  // Fills `into`.  The caller owns the descriptors.  Takes none if there are too few.
  void take_descriptors(std::span<int> into);
  int take_descriptor();

 private:
  std::shared_ptr<internal::Content> content_;  // not shared, as an Encoder's
  std::span<const std::byte> left_;
  std::size_t next_descriptor_ = 0;
};

namespace internal {

template <class T>
concept Plain = std::is_trivially_copyable_v<T> && spawn_safe<T> && !std::is_const_v<T>;

// A container's element without const: a map's element has a const key.
template <class T>
struct Element {
  using Type = T;
};
template <class Key, class T>
struct Element<std::pair<const Key, T>> {
  using Type = std::pair<Key, T>;
};

// Whether the receiver's containers have the same order or hash: it has no state.
template <class C>
constexpr bool is_ordered_alike() {
  bool alike = true;
  if constexpr (requires { typename C::key_compare; })
    alike = std::is_empty_v<typename C::key_compare>;
  if constexpr (requires {
                  typename C::hasher;
                  typename C::key_equal;
                })
    alike = std::is_empty_v<typename C::hasher> && std::is_empty_v<typename C::key_equal>;
  return alike;
}

template <class C>
concept Container =
    std::default_initializable<C> && std::ranges::sized_range<C> && is_ordered_alike<C>() &&
    requires(C container, typename Element<typename C::value_type>::Type element) {
      container.insert(container.end(), std::move(element));
      requires Codable<typename Element<typename C::value_type>::Type>;
    };

template <class C>
concept FlatContainer =
    Container<C> && std::ranges::contiguous_range<C> && Plain<typename C::value_type> &&
    requires(C container) { container.resize(std::size_t{}); };

}  // namespace internal

template <internal::Plain T>
struct Codec<T> {
  static void encode(Encoder& to, const T& value) { to.put_bytes(&value, sizeof(T)); }
  static T decode(Decoder& from) {
    std::array<std::byte, sizeof(T)> bytes;
    from.take_bytes(bytes.data(), bytes.size());
    return std::bit_cast<T>(bytes);
  }
};

template <>
struct Codec<bool> {
  static void encode(Encoder& to, bool value) { to.put_bytes(&value, 1); }
  static bool decode(Decoder& from) { return from.take<unsigned char>() != 0; }
};

template <internal::Container C>
struct Codec<C> {
  using Element = typename internal::Element<typename C::value_type>::Type;

  static void encode(Encoder& to, const C& container) {
    to.put_count(container.size());
    if constexpr (internal::FlatContainer<C>)
      to.put_bytes(container.data(), container.size() * sizeof(Element));
    else
      for (const auto& element : container) to.put<Element>(element);
  }
  static C decode(Decoder& from) {
    C container;
    if constexpr (internal::FlatContainer<C>) {
      const std::size_t count = from.take_count(sizeof(Element));
      container.resize(count);
      from.take_bytes(container.data(), count * sizeof(Element));
    } else {
      const std::size_t count = from.take_count();
      for (std::size_t i = 0; i < count; ++i)
        container.insert(container.end(), from.take<Element>());
    }
    return container;
  }
};

// Pairs and tuples.
template <template <class...> class Tuple, Codable... Ts>
  requires(requires { std::tuple_size<Tuple<Ts...>>::value; })
struct Codec<Tuple<Ts...>> {
  static void encode(Encoder& to, const Tuple<Ts...>& tuple) {
    std::apply([&](const Ts&... values) { (to.put(values), ...); }, tuple);
  }
  static Tuple<Ts...> decode(Decoder& from) {
    return Tuple<Ts...>{from.take<Ts>()...};  // braces: in this order
  }
};

template <Codable T, std::size_t size>
  requires(!internal::Plain<std::array<T, size>>)
struct Codec<std::array<T, size>> {
  static void encode(Encoder& to, const std::array<T, size>& array) {
    for (const T& value : array) to.put(value);
    if constexpr (size == 0) to.put('\0');
  }
  static std::array<T, size> decode(Decoder& from) {
    if constexpr (size == 0) (void)from.take<char>();
    return [&]<std::size_t... i>(std::index_sequence<i...>) {
      return std::array<T, size>{(static_cast<void>(i), from.take<T>())...};
    }(std::make_index_sequence<size>());
  }
};

template <Codable T>
  requires(!internal::Plain<std::optional<T>>)
struct Codec<std::optional<T>> {
  static void encode(Encoder& to, const std::optional<T>& value) {
    to.put_count(value.has_value() ? 1 : 0);
    if (value) to.put(*value);
  }
  static std::optional<T> decode(Decoder& from) {
    return from.take_count() != 0 ? std::optional<T>(from.take<T>()) : std::nullopt;
  }
};

template <Codable... Ts>
  requires(!internal::Plain<std::variant<Ts...>>)
struct Codec<std::variant<Ts...>> {
  using Variant = std::variant<Ts...>;

  static void encode(Encoder& to, const Variant& variant) {
    to.put_count(variant.index());
    std::visit([&](const auto& value) { to.put(value); }, variant);
  }
  static Variant decode(Decoder& from) {
    return [&]<std::size_t... i>(std::index_sequence<i...>) {
      const auto index = from.take<std::uint64_t>();
      std::optional<Variant> variant;
      ((index == i ? void(variant.emplace(std::in_place_index<i>, from.take<Ts>())) : void()), ...);
      return variant ? *std::move(variant) : (internal::throw_damaged(), *std::move(variant));
    }(std::index_sequence_for<Ts...>());
  }
};

// A Channel (share/channel.h): sends a handle, not the messages.
template <class C>
  requires requires(const C& channel) {
    channel.descriptors().segment;
    channel.descriptors().event;
    C::from_descriptors(channel.descriptors());
  }
struct Codec<C> {
  static void encode(Encoder& to, const C& channel) {
    to.put_descriptor(channel.descriptors().segment);
    to.put_descriptor(channel.descriptors().event);
  }
  static C decode(Decoder& from) {
    std::array<int, 2> taken{};
    from.take_descriptors(taken);
    auto channel = C::from_descriptors({taken[0], taken[1]});
    if (!channel) {
      for (const int descriptor : taken) ::close(descriptor);
      throw std::runtime_error(channel.error().message);
    }
    return *std::move(channel);
  }
};

template <>
struct Codec<std::filesystem::path> {
  static void encode(Encoder& to, const std::filesystem::path& path) { to.put(path.native()); }
  static std::filesystem::path decode(Decoder& from) { return from.take<std::string>(); }
};

}  // namespace cowshed
