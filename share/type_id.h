#pragma once

#include <cstdint>
#include <string_view>

// Types as numbers, so that a reference can be checked where the compiler no longer can: its 16
// bytes may have come through a pipe.
namespace cowshed {

// The type's name as the compiler writes it.
template <class T>
constexpr std::string_view type_name() {
  constexpr std::string_view kSignature = __PRETTY_FUNCTION__;  // "... [with T = int; ...]"
  constexpr std::string_view kStart = "T = ";
  constexpr std::size_t kBegin = kSignature.find(kStart) + kStart.size();
  return kSignature.substr(kBegin, kSignature.find_first_of(";]", kBegin) - kBegin);
}

// FNV-1a; never 0.
constexpr std::uint64_t hash_type(std::string_view name, std::size_t size, std::size_t alignment) {
  constexpr std::uint64_t kPrime = 0x100000001b3;
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * kPrime;
  }
  hash = (hash ^ size) * kPrime;
  hash = (hash ^ alignment) * kPrime;
  return hash | 1U;
}

// Equal in all processes of one executable.  Not in another: the compiler leaves default template
// arguments out of the name or not, by how the source spelled the type before.
template <class T>
inline constexpr std::uint64_t kTypeId = hash_type(type_name<T>(), sizeof(T), alignof(T));

}  // namespace cowshed
