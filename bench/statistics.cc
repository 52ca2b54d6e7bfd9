#include "statistics.h"

#include <algorithm>
#include <cstddef>
#include <random>

namespace cowshed::bench {

double median(std::vector<double> values) {
  if (values.empty()) {
    return 0;
  }
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) {
    return *middle;
  }
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

Interval bootstrap_median(const std::vector<double>& values) {
  constexpr std::size_t kResamples = 10000;
  std::mt19937 random(1);
  std::uniform_int_distribution<std::size_t> pick(0, values.size() - 1);
  std::vector<double> medians(kResamples);
  std::vector<double> sample(values.size());
  for (auto& result : medians) {
    for (auto& value : sample) {
      value = values[pick(random)];
    }
    result = median(sample);
  }
  std::sort(medians.begin(), medians.end());
  return {medians[kResamples / 40], medians[kResamples - 1 - kResamples / 40]};
}

}  // namespace cowshed::bench
