#pragma once

#include <cowshed/share/arena.h>
#include <cowshed/share/arena/core.h>

namespace cowshed::internal {

// The private part of Arena, for this library.
class ArenaAccess {
 public:
  static ArenaCore* core_of(const Arena& arena) { return arena.core_; }
  static Arena arena_of(ArenaCore* core) { return Arena(*core); }
};

}  // namespace cowshed::internal
