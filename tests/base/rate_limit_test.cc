#include <cowshed/base/rate_limit.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

using internal::DutyCycle;
using internal::TokenBucket;

constexpr std::uint64_t kMsNs = 1'000'000;

// Of looks that take so long each, in a minute of asking every millisecond.
std::uint64_t looks_in_a_minute(DutyCycle pace, std::uint64_t took_ns) {
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

TEST(DutyCycle, WhatTakesLongIsDoneSeldom) {
  EXPECT_EQ(looks_in_a_minute(DutyCycle(10), 10 * kMsNs), 600U);  // a tenth of the time
  EXPECT_EQ(looks_in_a_minute(DutyCycle(10), 1000 * kMsNs), 6U);
  EXPECT_EQ(looks_in_a_minute(DutyCycle(20, 20 * kMsNs), 100 * kMsNs), 30U);
}

TEST(DutyCycle, WhatTakesNoTimeIsDoneNoMoreOftenThanItMay) {
  EXPECT_EQ(looks_in_a_minute(DutyCycle(10), 0), 60'000U);
  EXPECT_EQ(looks_in_a_minute(DutyCycle(10, 50 * kMsNs), 0), 1200U);
}

TEST(DutyCycle, IsDueAtOnce) { EXPECT_TRUE(DutyCycle(10, 50 * kMsNs).is_due(0)); }

// How much of a span of time is spent by somebody who spends 1 ms whenever there is something left.
std::uint64_t spent_ms(TokenBucket& budget, std::uint64_t begin_ms, std::uint64_t end_ms) {
  std::uint64_t spent = 0;
  for (std::uint64_t now = begin_ms; now < end_ms; ++now) {
    if (!budget.is_left(now * kMsNs)) continue;
    budget.spend(now * kMsNs, kMsNs);
    ++spent;
  }
  return spent;
}

TEST(TokenBucket, GivesMuchAtFirstAndAShareInTheLongRun) {
  TokenBucket budget(100, 10 * kMsNs, 200 * kMsNs);
  EXPECT_NEAR(static_cast<double>(spent_ms(budget, 1, 201)), 200, 2);
  EXPECT_NEAR(static_cast<double>(spent_ms(budget, 201, 100'201)), 1000, 10);
}

TEST(TokenBucket, SavesNoMoreThanItMay) {
  TokenBucket budget(100, 20 * kMsNs, 200 * kMsNs);
  spent_ms(budget, 1, 1000);
  EXPECT_NEAR(static_cast<double>(spent_ms(budget, 1'000'000, 1'001'000)), 30, 5);
}

TEST(TokenBucket, WithNothingAtFirstTheShareHoldsFromTheFirstSecond) {
  TokenBucket budget(100, 20 * kMsNs, 1);
  EXPECT_NEAR(static_cast<double>(spent_ms(budget, 1, 1001)), 10, 1);
}

}  // namespace
}  // namespace cowshed::cow
