#include "channel_rivals_messages.h"

#include <cstring>
#include <fmt/format.h>
#include <stdexcept>

namespace cowshed::bench {
namespace {

constexpr std::uint64_t kEnd = ~std::uint64_t{0};
constexpr unsigned kSenderShift = 56;
constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;

std::uint64_t stamp_of(std::uint64_t sender, std::uint64_t number) {
  return sender << kSenderShift | number;
}
std::uint64_t word_of(std::uint64_t sender, std::uint64_t index) {
  return (index + 1) * kOdd ^ sender << kSenderShift;
}
// In a sum: doubled or lost messages do not make up for each other.
std::uint64_t scattered(std::uint64_t stamp) {
  const std::uint64_t mixed = (stamp ^ stamp >> 31U) * kOdd;
  return mixed ^ mixed >> 29U;
}

}  // namespace

Outgoing::Outgoing(std::size_t sender, std::size_t size) : sender_(sender), words_(size / 8) {
  for (std::size_t i = 1; i < words_.size(); ++i) words_[i] = word_of(sender, i);
}

std::span<const std::byte> Outgoing::next() { return stamped(stamp_of(sender_, ++number_)); }

std::span<const std::byte> Outgoing::end() { return stamped(kEnd); }

std::span<const std::byte> Outgoing::stamped(std::uint64_t stamp) {
  words_[0] = stamp;
  return std::as_bytes(std::span(words_));
}

bool Incoming::take(std::span<const std::byte> message) {
  if (message.size() != size_) {
    throw std::runtime_error(fmt::format("a message of {} bytes, not {}", message.size(), size_));
  }
  std::uint64_t stamp = 0;
  std::memcpy(&stamp, message.data(), sizeof stamp);
  if (stamp == kEnd) return false;
  const std::uint64_t sender = stamp >> kSenderShift;
  const std::uint64_t number = stamp ^ sender << kSenderShift;
  if (sender >= kMostSenders || number <= last_[sender]) {
    throw std::runtime_error(
        fmt::format("message {} of sender {} is doubled, out of order or damaged", number, sender));
  }
  last_[sender] = number;
  ++count_;
  checksum_ += scattered(stamp);
  compare(message, sender);
  return true;
}

void Incoming::compare(std::span<const std::byte> message, std::uint64_t sender) const {
  if (!whole_) {
    constexpr std::size_t kLine = 64;
    for (std::size_t at = kLine; at < message.size(); at += kLine) {
      (void)*static_cast<const volatile std::byte*>(&message[at]);
    }
    return;
  }
  std::uint64_t differences = 0;
  for (std::size_t i = 1; i < message.size() / 8; ++i) {
    std::uint64_t word = 0;
    std::memcpy(&word, message.data() + i * 8, sizeof word);
    differences |= word ^ word_of(sender, i);
  }
  if (differences != 0) throw std::runtime_error("a message has arrived with other content");
}

std::uint64_t checksum_of(std::size_t senders, std::uint64_t first, std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t sender = 0; sender < senders; ++sender) {
    for (std::uint64_t i = 0; i < count; ++i) sum += scattered(stamp_of(sender, first + i));
  }
  return sum;
}

}  // namespace cowshed::bench
