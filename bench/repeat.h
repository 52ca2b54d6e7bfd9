#pragma once

#include <chrono>
#include <vector>

#include "statistics.h"

namespace cowshed::bench {

constexpr const char* kRepeatSetting = "the median of up to 9 in a row, none begun after 10 ms";

// For one sample of what takes microseconds: a single one tells more of what others left in the
// caches, and of the moment.
template <class Once>
auto repeat(Once once) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::milliseconds(10);
  std::vector<decltype(once())> results;
  do {
    results.push_back(once());
  } while (results.size() < 9 && Clock::now() < end);
  return results;
}

template <class Times>
double median_of(const std::vector<Times>& results, double Times::* time) {
  std::vector<double> times;
  for (const Times& each : results) times.push_back(each.*time);
  return median(times);
}

}  // namespace cowshed::bench
