#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

namespace cowshed::bench {

struct Message {
  std::uint64_t number;
  std::array<std::byte, 56> text;
};
static_assert(sizeof(Message) == 64);

// One way from this process to a forked one: each function moves that many messages.
struct Lane {
  std::function<void(std::uint64_t)> send;
  std::function<std::uint64_t(std::uint64_t)> receive;  // the sum of the messages' numbers
};

// "general", "single", "general batched", "single batched", "boost", "pipe", "ring", "ring
// batched". Throws std::runtime_error.
Lane make_lane(const std::string& variant);

constexpr std::uint64_t kSlots = 1024;
constexpr std::uint64_t kBatch = 64;

}  // namespace cowshed::bench
