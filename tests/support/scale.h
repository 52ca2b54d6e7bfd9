#pragma once

#include <cstdlib>

// A test that draws or fills does so the same way each time, and little.  The environment asks for
// more.
namespace cowshed::test {

// COWSHED_SEED, or 1.
inline unsigned seed() {
  const char* wanted = std::getenv("COWSHED_SEED");
  return wanted != nullptr ? static_cast<unsigned>(std::strtoul(wanted, nullptr, 10)) : 1;
}

// `little`, or `much` where COWSHED_FULL is set, as ./tools/check --all does.
template <class Amount>
Amount little_or(Amount little, Amount much) {
  return std::getenv("COWSHED_FULL") != nullptr ? much : little;
}

#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#ifdef __SANITIZE_THREAD__
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
inline constexpr bool kSanitized = kAddressSanitizer || kThreadSanitizer;

// How much of something a test does: less where a sanitizer makes it slow.
template <class Amount>
constexpr Amount sized(Amount plain, Amount sanitized) {
  return kSanitized ? sanitized : plain;
}

}  // namespace cowshed::test
