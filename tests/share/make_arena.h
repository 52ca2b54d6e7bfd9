#pragma once

#include <cstddef>
#include <gtest/gtest.h>
#include <string>

#include <cowshed/share/arena.h>

namespace cowshed::test {

Arena make_arena(std::size_t capacity = 64_MiB, const std::string& name = "index",
                 bool huge_pages = true);
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
