#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// What the data loader loads, made from numbers alone.  applications_python does the same
// arithmetic.
namespace cowshed::bench {

constexpr std::size_t kBatchSamples = 32;

// Samples to be decoded, in this order, as one batch.
struct BatchOrder {
  std::uint64_t number = 0;
  std::uint64_t count = 0;  // 0: there are no more
  std::array<std::uint32_t, kBatchSamples> samples = {};
};

// What one pass over all samples asks for.
std::vector<BatchOrder> epoch_orders(std::size_t samples);

// 256 to 4,092 bytes, a multiple of 4.
std::vector<std::byte> make_sample(std::uint64_t number);

// Twice as much: a table's bytes for the sample's, and the sample backwards.
void decode(std::span<const std::byte> sample, std::byte* to);

// Of all bytes of a batch, whose size is a multiple of 8: their number modulo 2^64 - 1.
std::uint64_t batch_sum(std::span<const std::byte> batch);
// In the sum of an epoch, whose batches come in any order.
inline std::uint64_t weighted(std::uint64_t number, std::uint64_t sum) {
  return sum * (2 * number + 1);
}

// Of all batches, from no loader at all.
std::uint64_t right_epoch_sum(std::size_t samples);

}  // namespace cowshed::bench
