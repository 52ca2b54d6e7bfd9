#include <cstdint>
#include <gtest/gtest.h>

#include <cowshed/cow/pace.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kMsNs = 1'000'000;

// Of looks that take so long each, in a minute of asking every millisecond.
std::uint64_t looks_in_a_minute(Pace pace, std::uint64_t took_ns) {
  constexpr std::uint64_t kMinuteNs = 60'000 * kMsNs;
  std::uint64_t looks = 0;
  for (std::uint64_t now = 0; now < kMinuteNs; now += kMsNs) {
    if (!pace.is_due(now)) continue;
    ++looks;
    now += took_ns;
    pace.ran(now, took_ns);
  }
  return looks;
}

TEST(Pace, WhatTakesLongIsDoneSeldom) {
  EXPECT_EQ(looks_in_a_minute(Pace(9), 10 * kMsNs), 600U);  // a tenth of the time
  EXPECT_EQ(looks_in_a_minute(Pace(9), 1000 * kMsNs), 6U);
  EXPECT_EQ(looks_in_a_minute(Pace(19, 20 * kMsNs), 100 * kMsNs), 30U);
}

TEST(Pace, WhatTakesNoTimeIsDoneNoMoreOftenThanItMay) {
  EXPECT_EQ(looks_in_a_minute(Pace(9), 0), 60'000U);
  EXPECT_EQ(looks_in_a_minute(Pace(9, 50 * kMsNs), 0), 1200U);
}

TEST(Pace, IsDueAtOnce) { EXPECT_TRUE(Pace(9, 50 * kMsNs).is_due(0)); }

}  // namespace
}  // namespace cowshed::cow
