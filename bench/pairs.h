#pragma once

#include <functional>
#include <string>
#include <vector>

#include "statistics.h"

// Variants measured in turns, so that what disturbs one disturbs the others.
namespace cowshed::bench {

struct Variant {
  std::string name;
  std::function<double()> sample;  // one measurement
};

struct Samples {
  std::string name;
  std::vector<double> values;
};

// `rounds` samples of each variant, in a random order and then in its reverse, in another one and
// its reverse, ...; with two variants that is A B B A or B A A B.  One more where the rounds are
// odd, unless there is one.  So a drift is all variants' alike, and none always comes after the
// same other one, whose caches and freed memory it finds.  The orders are the same in each run of a
// program.  What the same round gave belongs together: a pair.
std::vector<Samples> interleave(const std::vector<Variant>& variants, int rounds);

// `more` comes from fresh processes: further pairs of the same variants.
void append(std::vector<Samples>& samples, const std::vector<Samples>& more);

const std::vector<double>& samples_of(const std::vector<Samples>& samples, const std::string& name);

struct Comparison {
  double ratio;       // median of the pairs' ratios a/b
  Interval interval;  // of it, 95 %
  double difference;  // median of the pairs' differences a-b
  Interval difference_interval;
  std::size_t pairs;
};

Comparison compare(const std::vector<double>& a, const std::vector<double>& b);

// The same of two that are differences themselves, and may be near 0: `ratio` is that of their
// medians, and the interval by resampling the pairs.  It has kNoBound where b may be 0 or less.
constexpr double kNoBound = 1000;
Comparison compare_differences(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace cowshed::bench
