#pragma once

#include <cstddef>

#include <cowshed/cow/meter.h>

namespace cowshed::bench {

// Pages of 4 KiB that a process has copied.
struct Copies {
  std::size_t pages = 0;
  std::size_t arena_pages = 0;  // of them, of frozen arenas

  // Ends the region.  Throws std::runtime_error.
  void add(cow::Meter& meter);
};

}  // namespace cowshed::bench
