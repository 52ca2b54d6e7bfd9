#pragma once

#include <cstdint>
#include <string>

namespace cowshed::cow {

// An object that a process has published, by its own words.
struct PublishedObject {
  std::string name;  // empty: published without one
  std::string type;
  std::string arena;
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
};

}  // namespace cowshed::cow
