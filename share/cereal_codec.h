#pragma once

#include <cereal/archives/binary.hpp>
#include <concepts>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include <cowshed/share/codec.h>

// A Codec for types that cereal (https://uscilab.github.io/cereal) can serialise.  Types with a
// member template `serialize` have it at once:
//
//   struct Rule {
//     std::string pattern;
//     int priority;
//     template <class Archive>
//     void serialize(Archive& archive) { archive(pattern, priority); }
//   };
//   auto rules = cowshed::Channel<std::vector<Rule>>::create();
//
// For other types, write
// `template <> struct cowshed::Codec<Graph> : cowshed::CerealCodec<Graph> {};`.
// Only this header needs cereal.
namespace cowshed {

template <class T>
struct CerealCodec {
  static void encode(Encoder& to, const T& value) {
    std::ostringstream bytes;
    cereal::BinaryOutputArchive archive(bytes);
    archive(value);
    to.put(std::move(bytes).str());
  }
  static T decode(Decoder& from) {
    std::istringstream bytes(from.take<std::string>());
    cereal::BinaryInputArchive archive(bytes);
    try {
      T value{};
      archive(value);
      return value;
    } catch (const std::bad_alloc&) {  // a damaged count
      internal::throw_damaged();
    } catch (const std::length_error&) {
      internal::throw_damaged();
    }
  }
};

template <class T>
  requires(std::default_initializable<T> && !internal::Plain<T> &&
           requires(T value, cereal::BinaryOutputArchive archive) { value.serialize(archive); })
struct Codec<T> : CerealCodec<T> {};

}  // namespace cowshed
