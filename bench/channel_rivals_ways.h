#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>

#include "helper.h"

// The ways that messages of one size can take between processes.
namespace cowshed::bench {

struct Shape {
  std::size_t size;  // of each message: a multiple of 8
  std::size_t senders = 1;
  std::size_t receivers = 1;
  bool back = false;  // the one receiver answers the one sender

  // Messages under way, where a queue has a length: 1,024, and at most 256 MiB of them, but one.
  std::size_t slots() const {
    return std::clamp<std::size_t>((std::size_t{256} << 20U) / size, 1, 1024);
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
  // Valid until the next call.  Empty: nothing came for some time, where Way::gives_up().
  virtual std::span<const std::byte> receive() = 0;
};

// Made before the processes are forked, which then make their ports.  Everything throws
// std::runtime_error.
class Way {
 public:
  Way() = default;
  virtual ~Way() = default;
  Way(const Way&) = delete;
  Way& operator=(const Way&) = delete;

  virtual std::unique_ptr<Port> sender(std::size_t index) = 0;
  virtual std::unique_ptr<Port> receiver(std::size_t index) = 0;
  // Whether receive() returns without a message, rather than to wait for one for ever.
  virtual bool gives_up() const { return false; }
  // What was asked for and granted, for the report.
  virtual std::string settings() const { return ""; }
};

// This way cannot take messages of that size on this machine.
class NotPossible : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

std::unique_ptr<Way> make_pipe_way(const Shape& shape);
std::unique_ptr<Way> make_polled_pipe_way(const Shape& shape);  // whose readers never sleep
std::unique_ptr<Way> make_socket_way(const Shape& shape);
std::unique_ptr<Way> make_mq_way(const Shape& shape);
// While it lives the kernel allows queues of 1,024 messages of 16 MiB, where this process may say
// so; else nothing.
std::unique_ptr<Helper> raise_mq_limits();
std::unique_ptr<Way> make_zmq_way(const Shape& shape);
std::unique_ptr<Way> make_boost_way(const Shape& shape);
std::unique_ptr<Way> make_channel_way(const Shape& shape);

}  // namespace cowshed::bench
