#include "sharing_entries.h"

#include <algorithm>

namespace cowshed::bench {
namespace {

constexpr std::string_view kPrefix = "package/";
constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15U;

std::uint64_t scatter(std::uint64_t number) {
  std::uint64_t value = (number + 1) * kOdd;
  value = (value ^ (value >> 31U)) * 0xbf58476d1ce4e5b9U;
  return value ^ (value >> 29U);
}

void write_key(std::uint64_t number, char* to) {
  std::uint64_t value = (number + 1) * kOdd;  // odd: no two numbers give the same
  std::copy(kPrefix.begin(), kPrefix.end(), to);
  for (std::size_t i = kKeySize; i-- > kPrefix.size(); value >>= 4U) {
    to[i] = "0123456789abcdef"[value & 15U];
  }
}

}  // namespace

Entry make_entry(std::uint64_t number) {
  const std::uint64_t random = scatter(number);
  Entry entry = {std::string(kKeySize, ' '), {}, {}, random >> 40U};
  write_key(number, entry.key.data());
  entry.title.assign(32 + (random & 127U), static_cast<char>('a' + (random >> 8U) % 26));
  entry.title.back() = static_cast<char>('a' + (random >> 16U) % 26);
  for (std::uint64_t i = 0; i < 8 + ((random >> 24U) & 31U); ++i) {
    entry.links.push_back(static_cast<std::uint32_t>(random + i * 0x9e3779b1U));
  }
  return entry;
}

Keys::Keys(Sequence sequence, std::uint64_t entries)
    : state_(scatter(sequence.worker * 1000 + sequence.pass)), entries_(entries), key_() {}

std::string_view Keys::next() {
  write_key(next_number(), key_.data());
  return {key_.data(), key_.size()};
}

Reference::Reference(std::size_t entries) : digests_(entries) {
  for (std::size_t i = 0; i < entries; ++i) {
    const Entry entry = make_entry(i);
    digests_[i] = digest(entry.title, entry.links, entry.weight);
  }
}

std::uint64_t Reference::answer(Keys::Sequence sequence, std::size_t look_ups) const {
  Keys keys(sequence, digests_.size());
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < look_ups; ++i) sum += digests_[keys.next_number()];
  return sum;
}

}  // namespace cowshed::bench
