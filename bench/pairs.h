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

// `rounds` samples of each variant in the order A B C, C B A, A B C, ...; with two variants that
// is A B B A.  What the same round gave belongs together: a pair.
std::vector<Samples> interleave(const std::vector<Variant>& variants, int rounds);

// `more` comes from fresh processes: further pairs of the same variants.
void append(std::vector<Samples>& samples, const std::vector<Samples>& more);

const std::vector<double>& samples_of(const std::vector<Samples>& samples, const std::string& name);

struct Comparison {
  double ratio;       // median of the pairs' ratios a/b
  Interval interval;  // of it, 95 %
  double ratio_of_medians;
  double difference;  // median of the pairs' differences a-b
  Interval difference_interval;
  std::size_t pairs;
};

Comparison compare(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace cowshed::bench
