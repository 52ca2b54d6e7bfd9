#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

// The ways that messages of one size can take between processes.
namespace cowshed::bench {

struct Shape {
  std::size_t size;  // of each message: a multiple of 8
  std::size_t senders = 1;
  std::size_t receivers = 1;
  bool back = false;   // the one receiver answers the one sender
  bool spins = false;  // nobody sleeps: they try again and again
  bool paced = false;  // the sender pauses, so that the receiver sleeps

  // Messages under way, where a queue has a length: 1,024, and at most 64 MiB of them.
  std::size_t slots() const {
    return std::clamp<std::size_t>((std::size_t{64} << 20U) / size, 1, 1024);
  }
};

// A process's end.
class Port {
 public:
  Port() = default;
  virtual ~Port() = default;
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  virtual void send(std::span<const std::byte> message) = 0;
  virtual std::span<const std::byte> receive() = 0;  // valid until the next call
};

// Made before the processes are forked, which then make their ports.  Everything throws
// std::runtime_error.
class Way {
 public:
  Way() = default;
  virtual ~Way() = default;
  Way(const Way&) = delete;
  Way& operator=(const Way&) = delete;

  virtual std::unique_ptr<Port> sender() = 0;
  virtual std::unique_ptr<Port> receiver() = 0;
};

// `name` is channel, values (Channel of std::array, of 64 bytes), pipe, socketpair, boost_queue
// (interprocess::message_queue), boost_spsc (lockfree::spsc_queue, of 64 bytes, spins), zeromq
// (PAIR over ipc://) or futex (a store and FUTEX_WAKE, paced).
std::unique_ptr<Way> make_way(const std::string& name, const Shape& shape);

}  // namespace cowshed::bench
