#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/share/arena_core.h>
#include <cowshed/share/registry_table.h>

// The bytes of a parcel (parcel.h).  Reading them is pure: bytes in, checked contents out, whatever
// the bytes are.  Both ends are of one machine, often of one build: another version is refused.
namespace cowshed::parcel_format {

inline constexpr std::array<char, 8> kMagic = {'C', 'o', 'w', 'P', 'a', 'r', 'c', 'l'};
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::size_t kMostBytes = std::size_t{1} << 30U;

// Descriptors: this one itself, the process tree's, then the files of the arenas, in order.
inline constexpr std::uint32_t kFirstFile = 2;

// `segments` name a file by its descriptor's index; `publications.arena` is null.
struct Contents {
  struct Arena {
    ArenaCore::Description description;
    std::vector<registry::Object> objects;
  };
  // Of arenas that are not here, since they were not frozen.
  struct Lost {
    std::string arena;
    std::vector<registry::Object> objects;  // name, slot and generation
  };

  std::uint64_t tree = 0;
  std::uint32_t last_generation = 0;  // of the tree
  std::vector<Arena> arenas;
  std::vector<Lost> lost;

  std::uint32_t descriptors() const;
};

std::vector<std::byte> write(const Contents& contents);

// Errors: bad_parcel (something else, damaged or contradicting itself), unsupported (another
// version).
Expected<Contents> read(std::span<const std::byte> bytes);

}  // namespace cowshed::parcel_format
