#pragma once

#include <cowshed/tests/support/test.h>

namespace cowshed::test {

// Memory with a pattern of its own in each byte.
struct RandomBlock {
  unsigned char* bytes = nullptr;
  std::size_t size = 0;
  std::size_t alignment = 1;
  unsigned char pattern = 0;

  // Without memory; its size has up to 2^(bits - 1) as its limit, small limits as often as large.
  static RandomBlock draw(std::mt19937& random, unsigned bits, unsigned alignment_bits = 13) {
    const std::size_t size = 1 + random() % (std::size_t{1} << random() % bits);
    return {nullptr, size, std::size_t{1} << random() % alignment_bits,
            static_cast<unsigned char>(random())};
  }
  RandomBlock& fill(void* at) {
    bytes = static_cast<unsigned char*>(at);
    std::memset(bytes, pattern, size);
    return *this;
  }
  bool intact() const {
    return reinterpret_cast<std::uintptr_t>(bytes) % alignment == 0 &&
           (size == 0 || (bytes[0] == pattern && std::memcmp(bytes, bytes + 1, size - 1) == 0));
  }
};

}  // namespace cowshed::test
