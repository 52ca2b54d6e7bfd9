#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace cowshed {

// Returns the type's name as the compiler writes it, for people.  Two source files may differ in
// it, as the default template arguments may be there or not.
template <class T>
constexpr std::string_view type_name() {
  constexpr std::string_view kSignature = __PRETTY_FUNCTION__;  // "... [with T = int; ...]"
  constexpr std::string_view kStart = "T = ";
  constexpr std::size_t kBegin = kSignature.find(kStart) + kStart.size();
  return kSignature.substr(kBegin, kSignature.find_first_of(";]", kBegin) - kBegin);
}

namespace internal {

// FNV-1a.
constexpr std::uint64_t kHashOfNothing = 0xcbf29ce484222325;
constexpr std::uint64_t mix_hash(std::uint64_t hash, std::uint64_t number) {
  return (hash ^ number) * 0x100000001b3;
}
inline std::uint64_t hash_bytes(const void* bytes, std::size_t size, std::uint64_t hash) {
  for (const unsigned char byte : std::span(static_cast<const unsigned char*>(bytes), size))
    hash = mix_hash(hash, byte);
  return hash;
}

// Returns a hash of a type's mangled name (std::type_info), size and alignment.  It is the same in
// every program with the same definition, and never 0.
inline std::uint64_t hash_type(std::string_view name, std::size_t size, std::size_t alignment) {
  const std::uint64_t hash = hash_bytes(name.data(), name.size(), kHashOfNothing);
  return mix_hash(mix_hash(hash, size), alignment) | 1U;
}

}  // namespace internal
}  // namespace cowshed
