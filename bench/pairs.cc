#include "pairs.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>

namespace cowshed::bench {

std::vector<Samples> interleave(const std::vector<Variant>& variants, int rounds) {
  std::vector<Samples> result;
  result.reserve(variants.size());
  for (const auto& variant : variants) result.push_back({variant.name, {}});
  static std::mt19937 random;  // NOLINT(cert-msc51-cpp): the same in each run
  std::vector<std::size_t> order(variants.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const int all = rounds == 1 ? 1 : rounds + rounds % 2;
  for (int round = 0; round < all; ++round) {
    if (round % 2 == 0) std::shuffle(order.begin(), order.end(), random);
    else std::reverse(order.begin(), order.end());
    for (const std::size_t turn : order) result[turn].values.push_back(variants[turn].sample());
  }
  return result;
}

void append(std::vector<Samples>& samples, const std::vector<Samples>& more) {
  if (samples.empty()) {
    samples = more;
    return;
  }
  for (std::size_t i = 0; i < samples.size(); ++i) {
    auto& values = samples[i].values;
    values.insert(values.end(), more.at(i).values.begin(), more.at(i).values.end());
  }
}

const std::vector<double>& samples_of(const std::vector<Samples>& samples,
                                      const std::string& name) {
  const auto found = std::find_if(samples.begin(), samples.end(),
                                  [&](const Samples& known) { return known.name == name; });
  if (found == samples.end()) throw std::logic_error("no variant '" + name + "'");
  return found->values;
}

Comparison compare(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  std::vector<double> differences;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ratios.push_back(a[i] / b.at(i));
    differences.push_back(a[i] - b.at(i));
  }
  return {.ratio = median(ratios),
          .interval = bootstrap_median(ratios),
          .difference = median(differences),
          .difference_interval = bootstrap_median(differences),
          .pairs = a.size()};
}

Comparison compare_differences(const std::vector<double>& a, const std::vector<double>& b) {
  const auto ratio = [](const std::vector<double>& over, const std::vector<double>& under) {
    const double divisor = median(under);
    return divisor <= 0 ? kNoBound : std::min(kNoBound, median(over) / divisor);
  };
  Comparison result = compare(a, b);
  result.ratio = ratio(a, b);
  result.interval = bootstrap(a.size(), [&](const std::vector<std::size_t>& picked) {
    std::vector<double> over;
    std::vector<double> under;
    for (const std::size_t i : picked) {
      over.push_back(a[i]);
      under.push_back(b.at(i));
    }
    return ratio(over, under);
  });
  return result;
}

}  // namespace cowshed::bench
