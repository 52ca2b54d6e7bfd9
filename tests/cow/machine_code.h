#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cowshed::cow {

using Bytes = std::vector<std::uint8_t>;

// Of "48 89 07".
inline Bytes bytes_of(std::string_view hexadecimal) {
  Bytes bytes;
  for (std::size_t at = 0; at < hexadecimal.size(); at += 3) {
    const std::string byte(hexadecimal.substr(at, 2));
    bytes.push_back(static_cast<std::uint8_t>(std::stoul(byte, nullptr, 16)));
  }
  return bytes;
}

}  // namespace cowshed::cow
