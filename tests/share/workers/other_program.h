#pragma once

#include <array>

// Worker functions of which two programs have each their own definition.
namespace cowshed::other {

long scale(long number);
long only_here(long number);

struct Sized {
#ifdef COWSHED_OTHER
  std::array<char, 16> bytes{};
#else
  std::array<char, 8> bytes{};
#endif
};
Sized grow(Sized sized);

}  // namespace cowshed::other
