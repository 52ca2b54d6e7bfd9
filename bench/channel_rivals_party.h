#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "channel_rivals_messages.h"
#include "channel_rivals_ways.h"

// What the processes that send and receive do.
namespace cowshed::bench {

constexpr std::size_t kMostReceivers = 4;

enum class Order : std::uint64_t { prepare, whole, timed, end };

// What one process tells.
struct alignas(128) Account {
  std::atomic<bool> done;
  std::atomic<std::uint64_t> count;
  std::uint64_t checksum;
  std::uint64_t begin;  // when the first was sent
  std::uint64_t end;    // when the last came
};

// By all of them.
struct Shared {
  std::atomic<bool> failing;
  std::atomic<bool> failed;  // and here is why
  std::array<char, 256> why;
  std::atomic<bool> ending;  // all has come
  std::array<Account, kMostSenders> senders;
  std::array<Account, kMostReceivers> receivers;
};

struct Traffic {
  Shape shape;
  std::uint64_t count;  // by each sender
  Way& way;
  Shared& shared;
  std::uint64_t* trips;  // ns each, where there is a way back
};

// Made before the fork, used in one process alone.
class Party {
 public:
  Party(const Traffic& traffic, std::size_t index, Account& account)
      : traffic_(traffic), index_(index), account_(account) {}
  virtual ~Party() = default;
  Party(const Party&) = delete;
  Party& operator=(const Party&) = delete;

  // Says in the shared memory when it is done, or why it failed, and throws then.
  void serve(Order order);

 protected:
  virtual void prepare() = 0;
  virtual void work(bool whole) = 0;
  virtual void end() {}

  // The next message; empty when all has come.
  std::span<const std::byte> await() const;

  // NOLINTBEGIN(*-non-private-member-variables-in-classes)
  const Traffic traffic_;
  const std::size_t index_;
  Account& account_;
  std::unique_ptr<Port> port_;
  // NOLINTEND(*-non-private-member-variables-in-classes)
};

class Sender final : public Party {
 public:
  Sender(const Traffic& traffic, std::size_t index)
      : Party(traffic, index, traffic.shared.senders.at(index)) {}

 private:
  void prepare() override;
  void work(bool whole) override;
  void end() override;
  void ask(bool whole);

  std::unique_ptr<Outgoing> outgoing_;
  std::uint64_t asked_ = 0;
};

class Receiver final : public Party {
 public:
  Receiver(const Traffic& traffic, std::size_t index)
      : Party(traffic, index, traffic.shared.receivers.at(index)) {}

 private:
  void prepare() override;
  void work(bool whole) override;
};

}  // namespace cowshed::bench
