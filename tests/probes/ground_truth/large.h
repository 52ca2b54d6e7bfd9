#pragma once

#include <cstddef>

namespace ground_truth {

inline constexpr std::size_t kHuge = std::size_t{2} << 20;

// N huge pages in an aligned range, not touched yet.
char* huge_pages();
// One store to every `stride` bytes of N huge pages.
void touch_each(char* huge, std::size_t stride);

}  // namespace ground_truth
