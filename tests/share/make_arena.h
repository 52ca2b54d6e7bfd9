#pragma once

#include <cstddef>
#include <string>

#include <cowshed/share/arena.h>

namespace cowshed::test {

// An arena to test with; throws std::runtime_error with what create() says where there is none.
Arena make_arena(std::size_t capacity = std::size_t{64} << 20, const std::string& name = "index",
                 bool huge_pages = true);

}  // namespace cowshed::test
