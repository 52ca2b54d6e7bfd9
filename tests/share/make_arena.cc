#include "make_arena.h"

#include <stdexcept>
#include <utility>

namespace cowshed::test {

Arena make_arena(std::size_t capacity, const std::string& name, bool huge_pages) {
  auto arena = Arena::create({.name = name, .capacity = capacity, .huge_pages = huge_pages});
  if (!arena) throw std::runtime_error(arena.error().message);
  return std::move(*arena);
}

}  // namespace cowshed::test
