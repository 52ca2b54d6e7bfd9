#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// What is sent, and whether it has arrived.  A message begins with who sent it and its number, from
// 1 on; the rest of its words follow from the sender.
namespace cowshed::bench {

constexpr std::size_t kMostSenders = 8;

class Outgoing {
 public:
  Outgoing(std::size_t sender, std::size_t size);

  std::span<const std::byte> next();
  // A message that ends its receiver's part.
  std::span<const std::byte> end();

 private:
  std::span<const std::byte> stamped(std::uint64_t stamp);

  std::uint64_t sender_;
  std::uint64_t number_ = 0;
  std::vector<std::uint64_t> words_;
};

// What one receiver got.  Throws std::runtime_error of what it should not have got.
class Incoming {
 public:
  // `whole`: every word is compared, else the first, and a byte of each cache line is read.
  Incoming(std::size_t size, bool whole) : size_(size), whole_(whole) {}

  // Whether it was a message, rather than an end.
  bool take(std::span<const std::byte> message);

  std::uint64_t count() const { return count_; }
  std::uint64_t checksum() const { return checksum_; }

 private:
  void compare(std::span<const std::byte> message, std::uint64_t sender) const;

  std::size_t size_;
  bool whole_;
  std::uint64_t count_ = 0;
  std::uint64_t checksum_ = 0;
  std::uint64_t last_[kMostSenders] = {};  // number of each sender
};

// The sum over all receivers, when each sender's messages from `first` on came once.
std::uint64_t checksum_of(std::size_t senders, std::uint64_t first, std::uint64_t count);

}  // namespace cowshed::bench
