#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/share/arena/core.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/registry/objects.h>

// What a parcel (parcel.h) and an image (share/arena_image.h) say of arenas.  Reading is pure:
// bytes in, checked contents out, whatever the bytes are.
namespace cowshed::parcel_format {

struct Contents {
  struct Arena {
    ArenaCore::Description description;  // a segment's `fd` counts the arena's files
    std::vector<registry::Object> objects;
  };
  // Of arenas that are not here, since they were not frozen.
  struct Lost {
    std::string arena;
    std::vector<registry::Object> objects;
  };

  std::uint64_t tree = 0;
  std::uint32_t last_generation = 0;  // of the tree
  std::vector<Arena> arenas;
  std::vector<Lost> lost;
};

void write(Encoder& to, const Contents& contents);

// Throws std::runtime_error: something else, damaged or contradicting itself.
Contents read(Decoder& from);

}  // namespace cowshed::parcel_format
