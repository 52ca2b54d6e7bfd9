#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

// The ways that messages of one size can take between processes.
namespace cowshed::bench {

struct Shape {
  std::size_t size;    // of each message: a multiple of 8
  bool back = false;   // the receiver answers the sender
  bool spins = false;  // nobody sleeps: they try again and again
  bool paced = false;  // the sender pauses, so that the receiver sleeps

  // Messages under way, where a queue has a length: 1,024, and at most 64 MiB of them.
  std::size_t slots() const {
    return std::clamp<std::size_t>((std::size_t{64} << 20U) / size, 1, 1024);
  }
};

using Message = std::span<const std::byte>;

// In one direction.  Made before the processes are forked.  Everything throws std::runtime_error.
class Line {
 public:
  virtual ~Line() = default;
  virtual void send(Message message) = 0;
  virtual Message receive() = 0;  // valid until the next call
};

// `way` is channel, values (Channel of std::array, of 64 bytes), pipe, socketpair, boost_queue
// (interprocess::message_queue), boost_spsc (lockfree::spsc_queue, of 64 bytes, spins), zeromq
// (PUSH and PULL over ipc://) or bare (a store, and FUTEX_WAKE unless it spins; one at a time).
std::unique_ptr<Line> make_line(const std::string& way, const Shape& shape);

}  // namespace cowshed::bench
