#pragma once

#include <vector>

namespace cowshed::bench {

double median(std::vector<double> values);

struct Interval {
  double low;
  double high;
};

// Of the median, 95 %, by 10,000 resamples with a fixed seed.
Interval bootstrap_median(const std::vector<double>& values);

}  // namespace cowshed::bench
