#pragma once

#include <cstdint>
#include <string>

namespace cowshed::cow {

// An object that a process says it has published.  Its fields are untrusted.
struct PublishedObject {
  std::string name;  // empty: published without a name
  std::string type;
  std::string arena;
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
};

}  // namespace cowshed::cow
