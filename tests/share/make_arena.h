#pragma once

#include <cowshed/share/arena.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {

inline Arena make_arena(std::size_t capacity = 64_MiB, const std::string& name = "index",
                        bool huge_pages = true) {
  auto arena = Arena::create({.name = name, .capacity = capacity, .huge_pages = huge_pages});
  if (!arena) throw std::runtime_error(arena.error().message);
  return std::move(*arena);
}
inline Arena make_arena(const std::string& name, std::size_t capacity = 64_MiB) {
  return make_arena(capacity, name);
}

}  // namespace cowshed::test

// The cases of a suite whose parameter is a FreezeMode.
#define COWSHED_EVERY_MODE(suite)                                                               \
  INSTANTIATE_TEST_SUITE_P(                                                                     \
      Modes, suite, testing::Values(cowshed::FreezeMode::strict, cowshed::FreezeMode::lenient), \
      [](const auto& mode) {                                                                    \
        return mode.param == cowshed::FreezeMode::strict ? "Strict" : "Lenient";                \
      })
