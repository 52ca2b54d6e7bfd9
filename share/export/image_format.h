#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

// The first page of an image file (share/arena_image.h).  docs/reference/image-format.md
// has the whole format.
namespace cowshed::image_format {

inline constexpr std::array<char, 8> kMagic = {'C', 'o', 'w', 'I', 'm', 'a', 'g', 'e'};
inline constexpr std::uint32_t kVersion = 2;

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t reserved = 0;
  std::uint64_t checksum = 0;      // checksum_of() this page and the parcel
  std::uint64_t parcel_bytes = 0;  // the parcel follows this page
  std::uint64_t base = 0;          // the arena's address
  std::uint64_t payload = 0;       // offset in the file, a multiple of 2 MiB
};

// Returns the checksum of the page and the parcel, with the field `checksum` taken as 0.
std::uint64_t checksum_of(std::span<const std::byte> head);

// Whether the file is an image of an arena at this address.
bool is_image(int fd, std::uint64_t base, std::uint64_t payload);

}  // namespace cowshed::image_format
