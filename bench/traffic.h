#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "peer.h"
#include "ways.h"

namespace cowshed::bench {

// Processes that send and receive, each on a CPU of its own where there are enough.
class Traffic {
 public:
  // Each sender sends `count` messages, or is answered `count` times.
  Traffic(const std::string& way, const Shape& shape, std::uint64_t count);

  // Sends all.  `whole`: every byte is compared, else the order, the number and the sum of all.
  // Throws std::runtime_error if a message is lost, doubled, damaged or out of order.
  void run(bool whole);

  double ns_a_message() const;  // from the first send until the last has been received
  // Of round trips, or paced: from the send until it is received.  `share`: 0.5 is the median.
  double ns_a_trip(double share) const;

 private:
  enum class Order : std::uint64_t { prepare, whole, timed, end };
  using Peers = std::vector<std::unique_ptr<Peer>>;
  using Serve = void (Traffic::*)(std::size_t index, Order order);

  // What one process tells.
  struct alignas(128) Account {
    std::uint64_t count;
    std::uint64_t checksum;
    std::uint64_t begin;  // when the first was sent
    std::uint64_t end;    // when the last came
  };
  static constexpr std::size_t kMost = 8;  // senders, and receivers
  struct Shared {
    std::array<Account, kMost> senders;
    std::array<Account, kMost> receivers;
  };
  class Outgoing;
  class Incoming;

  std::unique_ptr<Peer> start(Serve serve, std::size_t index, std::size_t cpu);
  static void order(const Peers& peers, Order what);
  static void finish(const Peers& peers);
  void send(std::size_t index, Order order);
  void send_all(Outgoing& outgoing, bool whole);
  void receive(std::size_t index, Order order);

  const Shape shape_;
  const std::uint64_t count_;
  std::uint64_t sent_ = 0;  // by each sender, before
  std::unique_ptr<Way> way_;
  Shared* shared_;
  std::uint64_t* trips_;        // ns each; while a paced message is under way, when it was sent
  std::unique_ptr<Port> port_;  // of one process
  Peers receivers_;
  Peers senders_;
};

}  // namespace cowshed::bench
