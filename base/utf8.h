#pragma once

#include <string>

namespace cowshed::internal {

// The UTF-8 of a character; of U+FFFD for what is none.
inline std::string utf8(char32_t character) {
  constexpr char32_t kReplacement = 0xfffd;
  if (character >= 0x110000 || (character >= 0xd800 && character < 0xe000))
    character = kReplacement;
  const auto byte = [](char32_t value) { return static_cast<char>(value); };
  const auto tail = [](char32_t bits) { return static_cast<char>(0x80 | (bits & 0x3f)); };
  if (character < 0x80) return {byte(character)};
  if (character < 0x800) return {byte(0xc0 | character >> 6), tail(character)};
  if (character < 0x10000)
    return {byte(0xe0 | character >> 12), tail(character >> 6), tail(character)};
  return {byte(0xf0 | character >> 18), tail(character >> 12), tail(character >> 6),
          tail(character)};
}

}  // namespace cowshed::internal
