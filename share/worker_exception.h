#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <typeinfo>

#include <cowshed/share/codec.h>

// Exceptions that travel from a worker to its parent as themselves.  The standard library's of
// <stdexcept> do so; others are entered, in any file of both programs:
//
//   COWSHED_EXCEPTION(NoSuchCorpus);
//
// Such a type has a Codec (codec.h), or is constructed from its what(), a std::string.  What is not
// entered reaches the parent as text alone.
namespace cowshed::internal {

// Its what() in one line, or its type where that is null.
std::string text_of(const std::exception& exception);

// In static memory, entered before main().
struct WorkerException {
  using Encode = void(Encoder& to, const std::exception& exception);
  using Decode = std::exception_ptr(Decoder& from);
  WorkerException(const std::type_info& type, Encode* encode, Decode* decode) noexcept;

  const std::type_info* type;
  Encode* encode;
  Decode* decode;
  const WorkerException* next;
};

template <class T>
class RegisteredException {
 public:
  static const WorkerException& entry() noexcept { return instance; }

 private:
  static_assert(std::is_base_of_v<std::exception, T>);
  static_assert(Codable<T> || std::is_constructible_v<T, std::string>,
                "specialise cowshed::Codec<T> for this exception, or give it a constructor that "
                "takes what(), a std::string");
  static void encode(Encoder& to, const std::exception& exception) {
    if constexpr (Codable<T>) {
      to.put(static_cast<const T&>(exception));
    } else {
      to.put(text_of(exception));
    }
  }
  static std::exception_ptr decode(Decoder& from) {
    if constexpr (Codable<T>) {
      return std::make_exception_ptr(from.take<T>());
    } else {
      return std::make_exception_ptr(T(from.take<std::string>()));
    }
  }
  // Hidden: each copy of the library in a process has its own list.
  [[gnu::visibility("hidden")]] static inline const WorkerException instance{typeid(T), &encode,
                                                                             &decode};
};

// What a worker says of the exception that ended it: one line, and itself if it can.
Content encode_exception(const std::exception& exception);
Content encode_failure(const std::string& text);

struct Failure {
  std::string text;
  std::exception_ptr exception;  // null: text alone
};
Failure decode_failure(Content content);

}  // namespace cowshed::internal

#define COWSHED_EXCEPTION_JOIN_2(a, b) a##b
#define COWSHED_EXCEPTION_JOIN(a, b) COWSHED_EXCEPTION_JOIN_2(a, b)
#define COWSHED_EXCEPTION(...)                                                         \
  [[maybe_unused]] static const void* const COWSHED_EXCEPTION_JOIN(cowshed_exception_, \
                                                                   __COUNTER__) =      \
      &::cowshed::internal::RegisteredException<__VA_ARGS__>::entry()
