#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <mqueue.h>
#include <string>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "channel_rivals_ways.h"
#include "kernel_setting.h"

// POSIX message queues.
namespace cowshed::bench {
namespace {

long system_limit(const char* name) {
  long result = 0;
  if (!(std::ifstream(fmt::format("/proc/sys/fs/mqueue/{}", name)) >> result)) {
    throw std::runtime_error(fmt::format("/proc/sys/fs/mqueue/{} cannot be read", name));
  }
  return result;
}

class MqPort final : public Port {
 public:
  MqPort(mqd_t in, mqd_t out, std::size_t size) : in_(in), out_(out), buffer_(in < 0 ? 0 : size) {}

  void send(std::span<const std::byte> message) override {
    if (mq_send(out_, reinterpret_cast<const char*>(message.data()), message.size(), 0) != 0) {
      throw std::runtime_error(fmt::format("mq_send: {}", std::strerror(errno)));
    }
  }
  std::span<const std::byte> receive() override {
    const ssize_t got =
        mq_receive(in_, reinterpret_cast<char*>(buffer_.data()), buffer_.size(), nullptr);
    if (got < 0) throw std::runtime_error(fmt::format("mq_receive: {}", std::strerror(errno)));
    return {buffer_.data(), static_cast<std::size_t>(got)};
  }

 private:
  mqd_t in_;
  mqd_t out_;
  std::vector<std::byte> buffer_;
};

class MqWay final : public Way {
 public:
  explicit MqWay(const Shape& shape) : shape_(shape) {
    raise_limit();
    there_ = open("there");
    if (shape.back) back_ = open("back");
    mq_attr attributes{};
    if (mq_getattr(there_, &attributes) != 0 || attributes.mq_maxmsg != slots_) {
      throw std::runtime_error("mq_getattr: another queue than was asked for");
    }
  }

  std::unique_ptr<Port> sender(std::size_t) override {
    return std::make_unique<MqPort>(back_, there_, shape_.size);
  }
  std::unique_ptr<Port> receiver(std::size_t) override {
    return std::make_unique<MqPort>(there_, back_, shape_.size);
  }
  std::string settings() const override {
    const bool fewer = slots_ < static_cast<long>(shape_.slots());
    return fmt::format("mq_maxmsg of {}{}", slots_,
                       fewer ? " (msg_max, RLIMIT_MSGQUEUE; more takes CAP_SYS_RESOURCE)" : "");
  }

 private:
  // Where that is allowed; else mq_open() says what is missing.
  static void raise_limit() {
    const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_MSGQUEUE, &all);
  }

  // With as many messages as the pipes and queues beside it where that is allowed, which takes
  // CAP_SYS_RESOURCE, else with what /proc/sys/fs/mqueue allows everybody.
  mqd_t open(const char* name) {
    const auto size = static_cast<long>(shape_.size);
    slots_ = static_cast<long>(shape_.slots());
    mqd_t queue = try_open(name);
    if (queue < 0 && (errno == EINVAL || errno == EMFILE)) {
      const long largest = system_limit("msgsize_max");
      if (size > largest) {
        throw NotPossible(fmt::format("more than msgsize_max, which is {} B", largest));
      }
      rlimit bytes{};
      getrlimit(RLIMIT_MSGQUEUE, &bytes);
      // The kernel's own record of a message counts, too.
      slots_ = std::clamp(static_cast<long>(bytes.rlim_cur) / (shape_.back ? 3 : 2) / (size + 128),
                          1L, std::min(slots_, system_limit("msg_max")));
      queue = try_open(name);
      if (queue < 0 && errno == EMFILE) {
        throw NotPossible(
            fmt::format("more than RLIMIT_MSGQUEUE allows, {} B, which "
                        "CAP_SYS_RESOURCE raises",
                        bytes.rlim_cur));
      }
    }
    if (queue < 0 && errno == ENOSPC) {
      throw NotPossible(
          fmt::format("more queues than queues_max, which is {}; CAP_SYS_RESOURCE may",
                      system_limit("queues_max")));
    }
    if (queue < 0) throw std::runtime_error(fmt::format("mq_open: {}", std::strerror(errno)));
    return queue;
  }

  mqd_t try_open(const char* name) const {
    const std::string path = fmt::format("/cowshed_bench_{}_{}", getpid(), name);
    mq_attr attributes{};
    attributes.mq_maxmsg = slots_;
    attributes.mq_msgsize = static_cast<long>(shape_.size);
    const mqd_t queue = mq_open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
    const int error = errno;
    if (queue >= 0) mq_unlink(path.c_str());  // it stays open
    errno = error;
    return queue;
  }

  const Shape shape_;
  long slots_ = 0;
  mqd_t there_ = -1;
  mqd_t back_ = -1;
};

}  // namespace

std::unique_ptr<Way> make_mq_way(const Shape& shape) { return std::make_unique<MqWay>(shape); }

std::unique_ptr<Helper> raise_mq_limits() {
  const auto path = [](const char* name) { return fmt::format("/proc/sys/fs/mqueue/{}", name); };
  if (access(path("msg_max").c_str(), W_OK) != 0) return nullptr;
  try {
    return std::make_unique<Helper>([&](int end, auto ready) {
      KernelSetting count(path("msg_max"));
      KernelSetting size(path("msgsize_max"));
      count.set("1024");
      size.set("16777216");  // the kernel's own limit
      if (ready()) Helper::has_ended(end, -1);
      size.put_back();
      count.put_back();
      return true;
    });
  } catch (const std::runtime_error&) {
    return nullptr;
  }
}

}  // namespace cowshed::bench
