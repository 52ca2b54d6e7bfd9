#include "applications_samples.h"

#include <algorithm>
#include <cstring>

namespace cowshed::bench {
namespace {

constexpr std::uint64_t kStride = 7919;  // a prime that divides no number of samples used here
constexpr std::size_t kNumberSize = 8;

std::byte pattern(std::uint64_t at) { return static_cast<std::byte>(at * at * 31 + at * 7); }

constexpr auto kTable = [] {
  std::array<std::byte, 256> table = {};
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::byte>(i * 167 + 13);
  return table;
}();

}  // namespace

std::vector<BatchOrder> epoch_orders(std::size_t samples) {
  std::vector<BatchOrder> orders((samples + kBatchSamples - 1) / kBatchSamples);
  for (std::uint64_t i = 0; i < samples; ++i) {
    BatchOrder& order = orders[i / kBatchSamples];
    order.number = i / kBatchSamples;
    order.samples[order.count++] = static_cast<std::uint32_t>(i * kStride % samples);
  }
  return orders;
}

std::vector<std::byte> make_sample(std::uint64_t number) {
  const std::uint64_t random = ((number + 1) * 0x9e3779b97f4a7c15U) >> 32U;
  std::vector<std::byte> sample(4 * (64 + random % 960));
  for (std::size_t i = 0; i < kNumberSize; ++i) {
    sample[i] = static_cast<std::byte>(number >> (8 * i));
  }
  for (std::size_t i = kNumberSize; i < sample.size(); ++i) {
    sample[i] = pattern(random % 256 + i - kNumberSize);
  }
  return sample;
}

void decode(std::span<const std::byte> sample, std::byte* to) {
  to = std::transform(sample.begin(), sample.end(), to,
                      [](std::byte b) { return kTable[std::to_integer<std::size_t>(b)]; });
  std::reverse_copy(sample.begin(), sample.end(), to);
}

std::uint64_t batch_sum(std::span<const std::byte> batch) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < batch.size(); i += sizeof sum) {
    std::uint64_t word = 0;
    std::memcpy(&word, &batch[i], sizeof word);
    sum += word;
    sum += sum < word ? 1 : 0;  // 2^64 is 1
  }
  return sum == ~std::uint64_t{0} ? 0 : sum;
}

std::uint64_t right_epoch_sum(std::size_t samples) {
  std::uint64_t sum = 0;
  std::vector<std::byte> batch;
  for (const BatchOrder& order : epoch_orders(samples)) {
    batch.clear();
    for (std::size_t i = 0; i < order.count; ++i) {
      const auto sample = make_sample(order.samples[i]);
      batch.resize(batch.size() + 2 * sample.size());
      decode(sample, &batch[batch.size() - 2 * sample.size()]);
    }
    sum += weighted(order.number, batch_sum(batch));
  }
  return sum;
}

}  // namespace cowshed::bench
