#pragma once

#include <cstdint>

namespace cowshed::search {

// What this process has done, in its own memory: neither on the heap beside the objects, nor in the
// arena.
struct Tally {
  std::uint64_t references_copied = 0;
  std::uint64_t frees = 0;  // objects whose only owner gave them up
};

inline Tally tally;

}  // namespace cowshed::search
