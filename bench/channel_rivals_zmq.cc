#include <array>
#include <atomic>
#include <cerrno>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>
#include <zmq.h>

#include "channel_rivals_ways.h"

// ZeroMQ over ipc://: a socket bound by each receiver, to which every sender connects.
namespace cowshed::bench {
namespace {

constexpr int kWait = 50;                              // ms
constexpr std::size_t kLarge = std::size_t{1} << 20U;  // from here on without a copy

void check(int result, const char* call) {
  if (result < 0) throw std::runtime_error(fmt::format("{}: {}", call, zmq_strerror(errno)));
}

class ZmqPort final : public Port {
 public:
  ZmqPort(int type, const Shape& shape, const cpu_set_t& cpus) : context_(zmq_ctx_new()) {
    // Its thread may run on any of the CPUs, where this one is pinned.
    cpu_set_t mine;
    sched_getaffinity(0, sizeof mine, &mine);
    sched_setaffinity(0, sizeof cpus, &cpus);
    check(zmq_ctx_set(context_, ZMQ_IO_THREADS, 1), "ZMQ_IO_THREADS");
    socket_ = zmq_socket(context_, type);
    sched_setaffinity(0, sizeof mine, &mine);
    if (socket_ == nullptr) check(-1, "zmq_socket");
    set(ZMQ_SNDHWM, static_cast<int>(shape.slots()));
    set(ZMQ_RCVHWM, static_cast<int>(shape.slots()));
    set(ZMQ_RCVTIMEO, kWait);
    check(zmq_msg_init(&received_), "zmq_msg_init");
  }
  ~ZmqPort() override {
    zmq_msg_close(&received_);
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }

  void bind(const std::string& address) { check(zmq_bind(socket_, address.c_str()), "zmq_bind"); }
  void connect(const std::string& address) {
    check(zmq_connect(socket_, address.c_str()), "zmq_connect");
  }

  void send(std::span<const std::byte> message) override {
    if (message.size() < kLarge) {
      check(zmq_send(socket_, message.data(), message.size(), 0), "zmq_send");
      return;
    }
    zmq_msg_t lent;
    lent_ = true;
    // It is only read.
    check(zmq_msg_init_data(&lent, const_cast<std::byte*>(message.data()), message.size(),
                            give_back, &lent_),
          "zmq_msg_init_data");
    check(zmq_msg_send(&lent, socket_, 0), "zmq_msg_send");
    lent_.wait(true);
  }

  std::span<const std::byte> receive() override {
    if (zmq_msg_recv(&received_, socket_, 0) < 0 && errno != EAGAIN) check(-1, "zmq_msg_recv");
    // zmq_msg_recv() leaves nothing in it after a failure.
    return {static_cast<const std::byte*>(zmq_msg_data(&received_)), zmq_msg_size(&received_)};
  }

 private:
  static void give_back(void*, void* lent) {
    auto& flag = *static_cast<std::atomic<bool>*>(lent);
    flag = false;
    flag.notify_one();
  }
  void set(int option, int value) {
    check(zmq_setsockopt(socket_, option, &value, sizeof value), "zmq_setsockopt");
  }

  void* context_;
  void* socket_ = nullptr;
  zmq_msg_t received_{};
  std::atomic<bool> lent_ = false;
};

class ZmqWay final : public Way {
 public:
  explicit ZmqWay(const Shape& shape) : shape_(shape) {
    if (sched_getaffinity(0, sizeof cpus_, &cpus_) != 0) {
      throw std::runtime_error("sched_getaffinity");
    }
  }

  std::unique_ptr<Port> sender(std::size_t) override {
    auto port = std::make_unique<ZmqPort>(shape_.back ? ZMQ_PAIR : ZMQ_PUSH, shape_, cpus_);
    for (std::size_t i = 0; i < shape_.receivers; ++i) port->connect(address(i));
    return port;
  }
  std::unique_ptr<Port> receiver(std::size_t index) override {
    auto port = std::make_unique<ZmqPort>(shape_.back ? ZMQ_PAIR : ZMQ_PULL, shape_, cpus_);
    port->bind(address(index));
    return port;
  }
  bool gives_up() const override { return true; }
  std::string settings() const override {
    int major = 0;
    int minor = 0;
    int patch = 0;
    zmq_version(&major, &minor, &patch);
    return fmt::format("{}.{}.{}", major, minor, patch);
  }

 private:
  // In the abstract namespace: it leaves no file.
  std::string address(std::size_t receiver) const {
    return fmt::format("ipc://@cowshed-bench-{}-{}", owner_, receiver);
  }

  const Shape shape_;
  const pid_t owner_ = getpid();
  cpu_set_t cpus_{};
};

}  // namespace

std::unique_ptr<Way> make_zmq_way(const Shape& shape) { return std::make_unique<ZmqWay>(shape); }

}  // namespace cowshed::bench
