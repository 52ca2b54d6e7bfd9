#include "statistics.h"

#include <algorithm>
#include <cstddef>
#include <random>

namespace cowshed::bench {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

Interval bootstrap(std::size_t count,
                   const std::function<double(const std::vector<std::size_t>&)>& statistic) {
  constexpr std::size_t kResamples = 10000;
  std::mt19937 random(1);
  std::uniform_int_distribution<std::size_t> pick(0, count - 1);
  std::vector<double> found(kResamples);
  std::vector<std::size_t> picked(count);
  for (auto& result : found) {
    for (auto& number : picked) number = pick(random);
    result = statistic(picked);
  }
  std::sort(found.begin(), found.end());
  return {found[kResamples / 40], found[kResamples - 1 - kResamples / 40]};
}

Interval bootstrap_median(const std::vector<double>& values) {
  std::vector<double> sample(values.size());
  return bootstrap(values.size(), [&](const std::vector<std::size_t>& picked) {
    std::transform(picked.begin(), picked.end(), sample.begin(),
                   [&](std::size_t number) { return values[number]; });
    return median(sample);
  });
}

}  // namespace cowshed::bench
