#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/share/arena/core.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/registry/objects.h>

// The bytes of a parcel (parcel.h) and of an image (share/arena_image.h).  read() accepts any bytes
// and returns checked contents.
namespace cowshed::parcel_format {

struct Contents {
  struct Arena {
    // A segment's `fd` is an index into the arena's files.
    internal::ArenaCore::Description description;
    std::vector<registry::Object> objects;
  };
  // Objects in arenas that were not frozen and so are not in the parcel.
  struct Lost {
    std::string arena;
    std::vector<registry::Object> objects;
  };

  std::uint64_t tree = 0;
  std::uint32_t last_generation = 0;  // the tree's last publication
  std::vector<Arena> arenas;
  std::vector<Lost> lost;
};

void write(Encoder& to, const Contents& contents);

// Throws std::runtime_error if the bytes are damaged, contradict themselves or are no parcel.
Contents read(Decoder& from);

}  // namespace cowshed::parcel_format
