#include "ways.h"

#include <array>
#include <atomic>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <malloc.h>
#include <optional>
#include <sched.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>
#include <vector>
#include <zmq.h>

#include <cowshed/share/channel.h>

#include "family.h"
#include "peer.h"

namespace cowshed::bench {
namespace {

using Message = std::span<const std::byte>;

constexpr int kBuffer = 1 << 20;        // of the kernel
constexpr std::size_t kRead = 1 << 16;  // at a time, where messages are small

[[noreturn]] void fail(const char* call) {
  throw std::runtime_error(fmt::format("{}: {}", call, std::strerror(errno)));
}

class FilePort final : public Port {
 public:
  // `ahead`: more than one message may be read at a time, as nobody else reads here.
  FilePort(int in, int out, std::size_t size, bool ahead)
      : in_(in),
        out_(out),
        size_(size),
        buffer_(in < 0  ? 0
                : ahead ? std::max(size, kRead)
                        : size) {}

  void send(Message message) override {
    while (!message.empty())
      message = message.subspan(done("write", write(out_, message.data(), message.size())));
  }

  Message receive() override {
    if (end_ - begin_ < size_) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    while (end_ - begin_ < size_)
      end_ += done("read", read(in_, buffer_.data() + end_, buffer_.size() - end_));
    begin_ += size_;
    return {buffer_.data() + begin_ - size_, size_};
  }

 private:
  static std::size_t done(const char* call, ssize_t count) {
    if (count > 0) return static_cast<std::size_t>(count);
    if (count == 0 || errno != EAGAIN) fail(call);
    return 0;  // of a descriptor that is O_NONBLOCK: who spins
  }

  int in_;
  int out_;
  std::size_t size_;
  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

// Descriptors to read from and to write to: there, and back.
class FileWay final : public Way {
 public:
  FileWay(const Shape& shape, bool by_socket) : shape_(shape) {
    if (by_socket) {
      open_sockets();
    } else {
      open_pipe(in_, out_);
      if (shape.back) open_pipe(back_in_, back_out_);
    }
    if (!shape.spins) return;
    for (const int fd : {in_, out_, back_in_, back_out_})
      if (fd >= 0) fcntl(fd, F_SETFL, O_NONBLOCK);
  }

  std::unique_ptr<Port> sender() override {
    return std::make_unique<FilePort>(shape_.back ? back_in_ : -1, out_, shape_.size, true);
  }
  std::unique_ptr<Port> receiver() override {
    return std::make_unique<FilePort>(in_, back_out_, shape_.size, shape_.receivers == 1);
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
    // If several read a stream, each may get a part of a message.
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

// A queue in shared memory there and, where it is asked for, one back.  The port makes the queue.
template <class QueuePort>
class QueueWay final : public Way {
 public:
  explicit QueueWay(const Shape& shape) : shape_(shape), there_(QueuePort::make(shape, "there")) {
    if (shape.back) back_ = QueuePort::make(shape, "back");
  }

  std::unique_ptr<Port> sender() override {
    return std::make_unique<QueuePort>(back_, there_, shape_);
  }
  std::unique_ptr<Port> receiver() override {
    return std::make_unique<QueuePort>(there_, back_, shape_);
  }

 private:
  const Shape shape_;
  std::optional<typename QueuePort::Queue> there_;
  std::optional<typename QueuePort::Queue> back_;
};

template <class Queue>
class PortOf : public Port {
 public:
  PortOf(std::optional<Queue>& in, std::optional<Queue>& out, const Shape& shape)
      : in_(in), out_(out), size_(shape.size), spins_(shape.spins) {}

 protected:
  std::optional<Queue>& in_;   // NOLINT(cppcoreguidelines-non-private-member-variables-in-classes)
  std::optional<Queue>& out_;  // NOLINT
  std::size_t size_;           // NOLINT
  bool spins_;                 // NOLINT
};

// Of a Channel.
template <class Sent>
void send_by(Channel<Sent>& channel, const auto& message, bool spins) {
  if (!spins) return got(channel.send(message));
  for (;;) {
    const auto sent = channel.try_send(message);
    if (sent) return;
    if (sent.error().code != ErrorCode::would_block) got(sent);
    _mm_pause();
  }
}
template <class Sent>
Sent receive_by(Channel<Sent>& channel, bool spins) {
  if (!spins) return got(channel.receive());
  for (;;) {
    auto received = channel.try_receive();
    if (received || received.error().code != ErrorCode::would_block)
      return got(std::move(received));
    _mm_pause();
  }
}

class ChannelPort final : public PortOf<Channel<Bytes>> {
 public:
  using Queue = Channel<Bytes>;
  using PortOf::PortOf;

  void send(Message message) override { send_by(*out_, message, spins_); }
  Message receive() override {
    received_ = Bytes();  // before one more is waited for: the sender may need its memory
    received_ = receive_by(*in_, spins_);
    return std::as_const(received_).span();
  }

  static Queue make(const Shape& shape, const char* name) {
    const std::size_t block = (shape.size + 4095) / 4096 * 4096;
    // As many as are queued elsewhere, and one in the hand of each receiver.
    return got(Queue::create({.name = name,
                              .slots = shape.slots(),
                              .memory = (shape.slots() + shape.receivers) * block}));
  }

 private:
  Bytes received_;
};

using Value = std::array<std::byte, 64>;

Value value_of(Message message) {
  Value value{};
  std::memcpy(value.data(), message.data(), value.size());
  return value;
}

class ValuePort final : public PortOf<Channel<Value>> {
 public:
  using Queue = Channel<Value>;
  using PortOf::PortOf;

  void send(Message message) override { send_by(*out_, value_of(message), spins_); }
  Message receive() override {
    received_ = receive_by(*in_, spins_);
    return received_;
  }

  static Queue make(const Shape& shape, const char* name) {
    return got(Queue::create({.name = name, .slots = shape.slots()}));
  }

 private:
  Value received_{};
};

class BoostPort final : public PortOf<std::unique_ptr<boost::interprocess::message_queue>> {
 public:
  using Queue = std::unique_ptr<boost::interprocess::message_queue>;
  BoostPort(std::optional<Queue>& in, std::optional<Queue>& out, const Shape& shape)
      : PortOf(in, out, shape), buffer_(shape.size) {}

  void send(Message message) override {
    if (!spins_) return (*out_)->send(message.data(), message.size(), 0);
    while (!(*out_)->try_send(message.data(), message.size(), 0)) _mm_pause();
  }
  Message receive() override {
    std::size_t size = 0;
    unsigned priority = 0;
    if (!spins_) (*in_)->receive(buffer_.data(), buffer_.size(), size, priority);
    else
      while (!(*in_)->try_receive(buffer_.data(), buffer_.size(), size, priority)) _mm_pause();
    return {buffer_.data(), size};
  }

  static Queue make(const Shape& shape, const char* name) {
    namespace ipc = boost::interprocess;
    const std::string path = fmt::format("cowshed_bench_{}_{}", getpid(), name);
    ipc::message_queue::remove(path.c_str());
    auto queue = std::make_unique<ipc::message_queue>(ipc::create_only, path.c_str(), shape.slots(),
                                                      shape.size);
    ipc::message_queue::remove(path.c_str());  // it stays mapped
    return queue;
  }

 private:
  std::vector<std::byte> buffer_;
};

using Ring = boost::lockfree::spsc_queue<Value, boost::lockfree::capacity<1024>>;

class RingPort final : public PortOf<Ring*> {
 public:
  using Queue = Ring*;
  using PortOf::PortOf;

  void send(Message message) override {
    while (!(*out_)->push(value_of(message))) _mm_pause();
  }
  Message receive() override {
    while (!(*in_)->pop(received_)) _mm_pause();
    return received_;
  }

  static Queue make(const Shape&, const char*) { return new (shared_memory(sizeof(Ring))) Ring(); }

 private:
  Value received_{};
};

// One message at a time, for a receiver that sleeps: the least that waking it costs.
struct FutexSlot {
  std::atomic<std::uint32_t> sent;
  std::atomic<std::uint32_t> received;
  Value value;
};

class FutexPort final : public PortOf<FutexSlot*> {
 public:
  using Queue = FutexSlot*;
  using PortOf::PortOf;

  void send(Message message) override {
    (*out_)->value = value_of(message);
    ++(*out_)->sent;
    syscall(SYS_futex, &(*out_)->sent, FUTEX_WAKE, 1, nullptr, nullptr, 0);
    while ((*out_)->received != (*out_)->sent) sched_yield();
  }
  Message receive() override {
    while ((*in_)->sent.load() == seen_)
      syscall(SYS_futex, &(*in_)->sent, FUTEX_WAIT, seen_, nullptr, nullptr, 0);
    received_ = (*in_)->value;
    (*in_)->received = ++seen_;
    return received_;
  }

  static Queue make(const Shape&, const char*) {
    return new (shared_memory(sizeof(FutexSlot))) FutexSlot{};
  }

 private:
  std::uint32_t seen_ = 0;
  Value received_{};
};

class ZeroPort final : public Port {
 public:
  ZeroPort(const std::string& address, bool binds, const Shape& shape)
      : context_(zmq_ctx_new()), socket_(zmq_socket(context_, ZMQ_PAIR)), spins_(shape.spins) {
    const int most = shape.size < kRead ? 100'000 : static_cast<int>(shape.slots());
    const int linger = 0;
    zmq_setsockopt(socket_, ZMQ_SNDHWM, &most, sizeof most);
    zmq_setsockopt(socket_, ZMQ_RCVHWM, &most, sizeof most);
    zmq_setsockopt(socket_, ZMQ_LINGER, &linger, sizeof linger);
    // Large messages do not go back to the kernel, to be faulted in again.
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    zmq_msg_init(&received_);
    if ((binds ? zmq_bind : zmq_connect)(socket_, address.c_str()) != 0) fail("ZeroMQ");
  }
  ~ZeroPort() override {
    zmq_msg_close(&received_);
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }

  void send(Message message) override {
    again("zmq_send", [&] { return zmq_send(socket_, message.data(), message.size(), flags()); });
  }
  Message receive() override {
    again("zmq_msg_recv", [&] { return zmq_msg_recv(&received_, socket_, flags()); });
    return {static_cast<const std::byte*>(zmq_msg_data(&received_)), zmq_msg_size(&received_)};
  }

 private:
  int flags() const { return spins_ ? ZMQ_DONTWAIT : 0; }
  template <class Call>
  static void again(const char* name, Call call) {
    while (call() < 0) {
      if (errno != EAGAIN) fail(name);
      sched_yield();  // to its own thread, which moves the message
    }
  }

  void* context_;
  void* socket_;
  zmq_msg_t received_{};
  bool spins_;
};

class ZeroWay final : public Way {
 public:
  explicit ZeroWay(const Shape& shape) : shape_(shape) {}
  std::unique_ptr<Port> sender() override {
    return std::make_unique<ZeroPort>(address_, false, shape_);
  }
  std::unique_ptr<Port> receiver() override {
    return std::make_unique<ZeroPort>(address_, true, shape_);
  }

 private:
  const Shape shape_;
  const std::string address_ = fmt::format("ipc://@cowshed-bench-{}", getpid());
};

}  // namespace

std::unique_ptr<Way> make_way(const std::string& name, const Shape& shape) {
  if (name == "channel" || name == "channel_again")
    return std::make_unique<QueueWay<ChannelPort>>(shape);
  if (name == "values") return std::make_unique<QueueWay<ValuePort>>(shape);
  if (name == "pipe") return std::make_unique<FileWay>(shape, false);
  if (name == "socketpair") return std::make_unique<FileWay>(shape, true);
  if (name == "boost_queue") return std::make_unique<QueueWay<BoostPort>>(shape);
  if (name == "boost_spsc") return std::make_unique<QueueWay<RingPort>>(shape);
  if (name == "zeromq") return std::make_unique<ZeroWay>(shape);
  if (name == "futex") return std::make_unique<QueueWay<FutexPort>>(shape);
  throw std::runtime_error("no way is called " + name);
}

}  // namespace cowshed::bench
