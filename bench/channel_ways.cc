#include "channel_ways.h"

#include <algorithm>
#include <array>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <optional>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/channel.h>

#include "got.h"

namespace cowshed::bench {
namespace {

constexpr int kBuffer = 1 << 20;        // of the kernel
constexpr std::size_t kRead = 1 << 16;  // at a time, where messages are small

[[noreturn]] void fail(const char* call) {
  throw std::runtime_error(fmt::format("{}: {}", call, std::strerror(errno)));
}

class FilePort final : public Port {
 public:
  // `ahead`: more than one message may be read at a time, as nobody else reads here.
  FilePort(int in, int out, const Shape& shape, bool ahead)
      : in_(in),
        out_(out),
        size_(shape.size),
        buffer_(in < 0  ? 0
                : ahead ? std::max(size_, kRead)
                        : size_) {}

  void send(std::span<const std::byte> message) override {
    while (!message.empty()) {
      const ssize_t written = write(out_, message.data(), message.size());
      if (written <= 0) fail("write");
      message = message.subspan(static_cast<std::size_t>(written));
    }
  }

  std::span<const std::byte> receive() override {
    if (end_ - begin_ < size_) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    while (end_ - begin_ < size_) {
      const ssize_t count = read(in_, buffer_.data() + end_, buffer_.size() - end_);
      if (count <= 0) fail("read");
      end_ += static_cast<std::size_t>(count);
    }
    begin_ += size_;
    return {buffer_.data() + begin_ - size_, size_};
  }

 private:
  int in_;
  int out_;
  std::size_t size_;
  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

// A file descriptor each to read from and to write to: there, and back.
class FileWay final : public Way {
 public:
  FileWay(const Shape& shape, bool by_socket) : shape_(shape) {
    if (by_socket) {
      open_sockets();
    } else {
      open_pipe(in_, out_);
      if (shape.back) open_pipe(back_in_, back_out_);
    }
  }

  std::unique_ptr<Port> sender() override {
    return std::make_unique<FilePort>(shape_.back ? back_in_ : -1, out_, shape_, true);
  }
  std::unique_ptr<Port> receiver() override {
    return std::make_unique<FilePort>(in_, back_out_, shape_, shape_.receivers == 1);
  }

 private:
  static void open_pipe(int& in, int& out) {
    std::array<int, 2> ends{};
    if (pipe(ends.data()) != 0) fail("pipe");
    if (fcntl(ends[1], F_SETPIPE_SZ, kBuffer) < kBuffer) fail("F_SETPIPE_SZ");
    in = ends[0];
    out = ends[1];
  }
  void open_sockets() {
    // Of several that read a stream, each might get a part of a message.
    const int type = shape_.senders + shape_.receivers > 2 ? SOCK_SEQPACKET : SOCK_STREAM;
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, type, 0, ends.data()) != 0) fail("socketpair");
    for (const int end : ends) {
      if (setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &kBuffer, sizeof kBuffer) != 0 &&
          setsockopt(end, SOL_SOCKET, SO_SNDBUF, &kBuffer, sizeof kBuffer) != 0) {
        fail("SO_SNDBUF");
      }
    }
    out_ = back_in_ = ends[0];
    in_ = back_out_ = ends[1];
  }

  const Shape shape_;
  int in_ = -1;
  int out_ = -1;
  int back_in_ = -1;
  int back_out_ = -1;
};

// A queue in shared memory there and, where it is asked for, one back.
template <class Queue, class QueuePort>
class QueueWay : public Way {
 public:
  QueueWay(const Shape& shape, Queue (*make)(const Shape& shape, const char* name))
      : size_(shape.size), there_(make(shape, "there")) {
    if (shape.back) back_ = make(shape, "back");
  }

  std::unique_ptr<Port> sender() override {
    return std::make_unique<QueuePort>(back_, there_, size_);
  }
  std::unique_ptr<Port> receiver() override {
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

// Messages of 64 bytes, each in a slot.
class ValuePort final : public Port {
 public:
  using Value = std::array<std::byte, 64>;
  using Queue = Channel<Value>;

  ValuePort(std::optional<Queue>& in, std::optional<Queue>& out, std::size_t)
      : in_(in), out_(out) {}

  void send(std::span<const std::byte> message) override {
    Value value{};
    std::memcpy(value.data(), message.data(), value.size());
    got(out_->send(value));
  }
  std::span<const std::byte> receive() override {
    received_ = got(in_->receive());
    return received_;
  }

  static Queue make(const Shape& shape, const char* name) {
    return got(Queue::create({.name = name, .slots = shape.slots()}));
  }

 private:
  std::optional<Queue>& in_;
  std::optional<Queue>& out_;
  Value received_{};
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

std::unique_ptr<Way> make_way(const std::string& name, const Shape& shape) {
  if (name == "pipe") return std::make_unique<FileWay>(shape, false);
  if (name == "socketpair") return std::make_unique<FileWay>(shape, true);
  if (name == "channel of values")
    return std::make_unique<QueueWay<Channel<ValuePort::Value>, ValuePort>>(shape, ValuePort::make);
  if (name == "channel")
    return std::make_unique<QueueWay<Channel<Bytes>, ChannelPort>>(shape, ChannelPort::make);
  return std::make_unique<QueueWay<BoostQueue, BoostPort>>(shape, BoostPort::make);
}

}  // namespace cowshed::bench
