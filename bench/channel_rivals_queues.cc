#include <boost/interprocess/ipc/message_queue.hpp>
#include <fmt/format.h>
#include <optional>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/channel.h>

#include "channel_rivals_ways.h"
#include "got.h"

// Queues in shared memory: Cowshed's channels, and Boost's.
namespace cowshed::bench {
namespace {

// The ports of a way with one queue there and, where it is asked for, one back.
template <class Queue, class QueuePort>
class QueueWay : public Way {
 public:
  QueueWay(const Shape& shape, Queue (*make)(const Shape& shape, const char* name))
      : size_(shape.size), there_(make(shape, "there")) {
    if (shape.back) back_ = make(shape, "back");
  }

  std::unique_ptr<Port> sender(std::size_t) override {
    return std::make_unique<QueuePort>(back_, there_, size_);
  }
  std::unique_ptr<Port> receiver(std::size_t) override {
    return std::make_unique<QueuePort>(there_, back_, size_);
  }

 private:
  std::size_t size_;
  std::optional<Queue> there_;
  std::optional<Queue> back_;
};

class ChannelPort final : public Port {
 public:
  using Queue = Channel<Bytes>;

  ChannelPort(std::optional<Queue>& in, std::optional<Queue>& out, std::size_t)
      : in_(in), out_(out) {}

  void send(std::span<const std::byte> message) override { got(out_->send(message)); }
  std::span<const std::byte> receive() override {
    received_ = Bytes();  // before one more is waited for: the sender may need its memory
    received_ = got(in_->receive());
    return std::as_const(received_).span();
  }

  static Queue make(const Shape& shape, const char* name) {
    constexpr std::size_t kPage = 4096;
    const std::size_t block = (shape.size + kPage - 1) / kPage * kPage;
    // As many as are queued elsewhere, and one in the hand of each receiver.
    return got(Queue::create({.name = name,
                              .slots = shape.slots(),
                              .memory = (shape.slots() + shape.receivers) * block}));
  }

 private:
  std::optional<Queue>& in_;
  std::optional<Queue>& out_;
  Bytes received_;
};

using BoostQueue = std::unique_ptr<boost::interprocess::message_queue>;

class BoostPort final : public Port {
 public:
  BoostPort(std::optional<BoostQueue>& in, std::optional<BoostQueue>& out, std::size_t size)
      : in_(in), out_(out), buffer_(in ? size : 0) {}

  void send(std::span<const std::byte> message) override {
    (*out_)->send(message.data(), message.size(), 0);
  }
  std::span<const std::byte> receive() override {
    std::size_t size = 0;
    unsigned priority = 0;
    (*in_)->receive(buffer_.data(), buffer_.size(), size, priority);
    return {buffer_.data(), size};
  }

  static BoostQueue make(const Shape& shape, const char* name) {
    namespace ipc = boost::interprocess;
    const std::string path = fmt::format("cowshed_bench_{}_{}", getpid(), name);
    auto queue = std::make_unique<ipc::message_queue>(ipc::create_only, path.c_str(), shape.slots(),
                                                      shape.size);
    ipc::message_queue::remove(path.c_str());  // it stays mapped
    return queue;
  }

 private:
  std::optional<BoostQueue>& in_;
  std::optional<BoostQueue>& out_;
  std::vector<std::byte> buffer_;
};

}  // namespace

std::unique_ptr<Way> make_channel_way(const Shape& shape) {
  return std::make_unique<QueueWay<Channel<Bytes>, ChannelPort>>(shape, ChannelPort::make);
}
std::unique_ptr<Way> make_boost_way(const Shape& shape) {
  return std::make_unique<QueueWay<BoostQueue, BoostPort>>(shape, BoostPort::make);
}

}  // namespace cowshed::bench
