#include "lines.h"

#include <array>
#include <atomic>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <malloc.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zmq.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/share/channel.h>

#include "../family.h"
#include "../process.h"

namespace cowshed::bench {
namespace {

namespace ipc = boost::interprocess;

constexpr int kBuffer = 1 << 20;        // of the kernel
constexpr std::size_t kRead = 1 << 16;  // at a time, where messages are small

void expect(bool succeeded, const char* call) {
  if (!succeeded) throw std::runtime_error(fmt::format("{}: {}", call, std::strerror(errno)));
}

class FileLine final : public Line {
 public:
  FileLine(const Shape& shape, bool by_socket)
      : size_(shape.size), buffer_(std::max(size_, kRead)) {
    if (by_socket) {
      expect(socketpair(AF_UNIX, SOCK_STREAM, 0, ends_.data()) == 0, "socketpair");
      expect(setsockopt(ends_[1], SOL_SOCKET, SO_SNDBUFFORCE, &kBuffer, sizeof kBuffer) == 0,
             "SO_SNDBUFFORCE");  // as root
    } else {
      expect(pipe(ends_.data()) == 0, "pipe");
      expect(fcntl(ends_[1], F_SETPIPE_SZ, kBuffer) >= kBuffer, "F_SETPIPE_SZ");
    }
    for (const int fd : ends_)
      if (shape.spins) fcntl(fd, F_SETFL, O_NONBLOCK);
  }

  void send(Message message) override {
    while (!message.empty())
      message = message.subspan(done("write", write(ends_[1], message.data(), message.size())));
  }

  Message receive() override {
    if (end_ - begin_ < size_) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    while (end_ - begin_ < size_)
      end_ += done("read", read(ends_[0], buffer_.data() + end_, buffer_.size() - end_));
    begin_ += size_;
    return {buffer_.data() + begin_ - size_, size_};
  }

 private:
  static std::size_t done(const char* call, ssize_t count) {
    expect(count > 0 || (count < 0 && errno == EAGAIN), call);
    return count > 0 ? static_cast<std::size_t>(count) : 0;
  }

  std::array<int, 2> ends_{};  // to read from, and to write to
  std::size_t size_;
  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

using Value = std::array<std::byte, 64>;

Value value_of(Message message) {
  Value value{};
  std::memcpy(value.data(), message.data(), value.size());
  return value;
}

// Calls again and again, until the result is another than that it would block.
template <class Call>
auto insist(Call call) {
  for (;;) {
    auto result = call();
    if (result || result.error().code != ErrorCode::would_block) return got(std::move(result));
    arch::pause();
  }
}

template <class Sent>
class ChannelLine final : public Line {
 public:
  explicit ChannelLine(const Shape& shape)
      : spins_(shape.spins),
        channel_(got(Channel<Sent>::create(
            {.slots = shape.slots(), .memory = kByValue ? 0 : memory(shape)}))) {}

  void send(Message message) override {
    if constexpr (kByValue) send_as(value_of(message));
    else send_as(message);
  }
  Message receive() override {
    if constexpr (!kByValue) received_ = {};  // before one more: the sender may need its memory
    received_ =
        spins_ ? insist([this] { return channel_.try_receive(); }) : got(channel_.receive());
    if constexpr (kByValue) return received_;
    else return std::as_const(received_).span();
  }

 private:
  static constexpr bool kByValue = std::is_same_v<Sent, Value>;

  // For as many as are queued elsewhere, and one in the receiver's hand.
  static std::size_t memory(const Shape& shape) {
    return (shape.slots() + 1) * ((shape.size + arch::kPage - 1) / arch::kPage * arch::kPage);
  }
  void send_as(const auto& message) {
    if (spins_) insist([&] { return channel_.try_send(message); });
    else got(channel_.send(message));
  }

  bool spins_;
  Channel<Sent> channel_;
  Sent received_{};
};

class BoostLine final : public Line {
 public:
  explicit BoostLine(const Shape& shape)
      : spins_(shape.spins),
        queue_(ipc::open_or_create, name_.c_str(), shape.slots(), shape.size),
        buffer_(shape.size) {
    ipc::message_queue::remove(name_.c_str());  // it stays mapped
  }

  void send(Message message) override {
    if (!spins_) return queue_.send(message.data(), message.size(), 0);
    while (!queue_.try_send(message.data(), message.size(), 0)) arch::pause();
  }
  Message receive() override {
    std::size_t size = 0;
    unsigned priority = 0;
    if (!spins_) queue_.receive(buffer_.data(), buffer_.size(), size, priority);
    else
      while (!queue_.try_receive(buffer_.data(), buffer_.size(), size, priority)) arch::pause();
    return {buffer_.data(), size};
  }

 private:
  bool spins_;
  std::string name_ = fmt::format("cowshed_bench_{}", getpid());
  ipc::message_queue queue_;
  std::vector<std::byte> buffer_;
};

class RingLine final : public Line {
 public:
  void send(Message message) override {
    while (!ring_->push(value_of(message))) arch::pause();
  }
  Message receive() override {
    while (!ring_->pop(received_)) arch::pause();
    return received_;
  }

 private:
  using Ring = boost::lockfree::spsc_queue<Value, boost::lockfree::capacity<1024>>;
  Ring* ring_ = new (shared_memory(sizeof(Ring))) Ring();
  Value received_{};
};

// One message at a time: the least that a hand-over costs.
class BareLine final : public Line {
 public:
  explicit BareLine(const Shape& shape) : spins_(shape.spins) {}

  void send(Message message) override {
    while (slot_->received != slot_->sent) spins_ ? arch::pause() : (void)sched_yield();
    slot_->value = value_of(message);
    ++slot_->sent;
    if (!spins_) syscall(SYS_futex, &slot_->sent, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }
  Message receive() override {
    while (slot_->sent.load() == seen_)
      if (spins_) arch::pause();
      else syscall(SYS_futex, &slot_->sent, FUTEX_WAIT, seen_, nullptr, nullptr, 0);
    received_ = slot_->value;
    slot_->received = ++seen_;
    return received_;
  }

 private:
  struct Slot {
    std::atomic<std::uint32_t> sent;
    std::atomic<std::uint32_t> received;
    Value value;
  };
  bool spins_;
  Slot* slot_ = new (shared_memory(sizeof(Slot))) Slot{};
  std::uint32_t seen_ = 0;
  Value received_{};
};

class ZeroLine final : public Line {
 public:
  explicit ZeroLine(const Shape& shape)
      : flags_(shape.spins ? ZMQ_DONTWAIT : 0),
        most_(shape.size < kRead ? 100'000 : static_cast<int>(shape.slots())) {}
  ~ZeroLine() override {
    if (socket_ != nullptr) zmq_close(socket_);
  }

  void send(Message message) override {
    open(zmq_connect);
    while (zmq_send(socket_, message.data(), message.size(), flags_) < 0) wait("zmq_send");
  }
  Message receive() override {
    open(zmq_bind);
    while (zmq_msg_recv(&received_, socket_, flags_) < 0) wait("zmq_msg_recv");
    return {static_cast<const std::byte*>(zmq_msg_data(&received_)), zmq_msg_size(&received_)};
  }

 private:
  // In the forked process.
  void open(int (*join)(void*, const char*)) {
    if (socket_ != nullptr) return;
    static void* const context = zmq_ctx_new();
    socket_ = zmq_socket(context, join == zmq_bind ? ZMQ_PULL : ZMQ_PUSH);
    for (const int limit : {ZMQ_SNDHWM, ZMQ_RCVHWM})
      expect(zmq_setsockopt(socket_, limit, &most_, sizeof most_) == 0, "ZeroMQ");
    // Large messages do not go back to the kernel, to be faulted in again.
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    zmq_msg_init(&received_);
    expect(join(socket_, address_.c_str()) == 0, "ZeroMQ");
  }
  static void wait(const char* call) {
    expect(errno == EAGAIN, call);
    sched_yield();  // to its own thread, which moves the message
  }

  int flags_;
  int most_;
  std::string address_ = fmt::format("ipc://@cowshed-bench-{}-{}", getpid(), fmt::ptr(this));
  void* socket_ = nullptr;
  zmq_msg_t received_{};
};

}  // namespace

std::unique_ptr<Line> make_line(const std::string& way, const Shape& shape) {
  if (way.starts_with("channel")) return std::make_unique<ChannelLine<Bytes>>(shape);
  if (way == "values") return std::make_unique<ChannelLine<Value>>(shape);
  if (way == "pipe") return std::make_unique<FileLine>(shape, false);
  if (way == "socketpair") return std::make_unique<FileLine>(shape, true);
  if (way == "boost_queue") return std::make_unique<BoostLine>(shape);
  if (way == "boost_spsc") return std::make_unique<RingLine>();
  if (way == "zeromq") return std::make_unique<ZeroLine>(shape);
  if (way == "bare") return std::make_unique<BareLine>(shape);
  throw std::runtime_error("no way is called " + way);
}

}  // namespace cowshed::bench
