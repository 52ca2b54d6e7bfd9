#include "applications_batches.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <stdexcept>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/channel.h>

#include "got.h"

namespace cowshed::bench {
namespace {

// Before the bytes of a batch.
struct BatchHeader {
  std::uint64_t worker;
  std::uint64_t number;
  std::uint64_t size;
};

// One channel of orders, one of batches, which workers write where the receiver reads.
class ChannelLanes final : public BatchLanes {
 public:
  void send_order(std::uint64_t, const BatchOrder& order) override { got(orders_.send(order)); }
  Batch receive() override {
    received_ = got(batches_.receive());
    BatchHeader header{};
    std::memcpy(&header, received_.data(), sizeof header);
    return {header.worker, header.number, received_.span().subspan(sizeof header)};
  }

  BatchOrder take_order(std::uint64_t) override { return got(orders_.receive()); }
  void send_batch(std::uint64_t worker, std::uint64_t number, std::size_t size,
                  const Fill& fill) override {
    const BatchHeader header = {worker, number, size};
    auto message = got(batches_.buffer(sizeof header + size));
    std::memcpy(message.data(), &header, sizeof header);
    fill(message.span().subspan(sizeof header));
    got(batches_.send(std::move(message)));
  }

  bool in_place() const override { return true; }

 private:
  Channel<BatchOrder> orders_ = got(Channel<BatchOrder>::create({.name = "orders"}));
  Channel<Bytes> batches_ = got(Channel<Bytes>::create({.name = "batches"}));
  Bytes received_;
};

void write_all(int fd, const void* bytes, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t wrote = write(fd, static_cast<const std::byte*>(bytes) + done, size - done);
    if (wrote < 0 && errno != EINTR) throw std::runtime_error("the other end of a pipe is gone");
    done += wrote < 0 ? 0 : static_cast<std::size_t>(wrote);
  }
}

void read_all(int fd, void* bytes, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = read(fd, static_cast<std::byte*>(bytes) + done, size - done);
    if (got == 0 || (got < 0 && errno != EINTR)) {
      throw std::runtime_error("the other end of a pipe is gone");
    }
    done += got < 0 ? 0 : static_cast<std::size_t>(got);
  }
}

// Two pipes for each worker, as large as an unprivileged process may have them.
class PipeLanes final : public BatchLanes {
 public:
  explicit PipeLanes(std::size_t workers) : ends_(workers) {
    for (WorkerPipes& pipes : ends_) {
      if (pipe2(pipes.orders.data(), O_CLOEXEC) != 0 ||
          pipe2(pipes.batches.data(), O_CLOEXEC) != 0 ||
          fcntl(pipes.batches[1], F_SETPIPE_SZ, kPipeSize) < 0) {
        throw std::runtime_error("no pipe of 1 MiB");
      }
    }
  }
  ~PipeLanes() override {
    for (const WorkerPipes& pipes : ends_) {
      for (const int fd : pipes.orders) close(fd);
      for (const int fd : pipes.batches) close(fd);
    }
  }

  void send_order(std::uint64_t worker, const BatchOrder& order) override {
    write_all(ends_[worker].orders[1], &order, sizeof order);
  }
  Batch receive() override {
    const int fd = readable();
    BatchHeader header{};
    read_all(fd, &header, sizeof header);
    bytes_.resize(header.size);
    read_all(fd, bytes_.data(), header.size);
    return {header.worker, header.number, bytes_};
  }

  BatchOrder take_order(std::uint64_t worker) override {
    BatchOrder order;
    read_all(ends_[worker].orders[0], &order, sizeof order);
    return order;
  }
  void send_batch(std::uint64_t worker, std::uint64_t number, std::size_t size,
                  const Fill& fill) override {
    const BatchHeader header = {worker, number, size};
    bytes_.resize(size);
    fill(bytes_);
    write_all(ends_[worker].batches[1], &header, sizeof header);
    write_all(ends_[worker].batches[1], bytes_.data(), size);
  }

  bool in_place() const override { return false; }

 private:
  static constexpr int kPipeSize = 1 << 20U;

  struct WorkerPipes {
    std::array<int, 2> orders = {};
    std::array<int, 2> batches = {};
  };

  // The end of a pipe with a batch in it, of each worker in turn.
  int readable() {
    std::vector<pollfd> polled;
    polled.reserve(ends_.size());
    for (const WorkerPipes& pipes : ends_) polled.push_back({pipes.batches[0], POLLIN, 0});
    while (poll(polled.data(), polled.size(), -1) < 0) {
      if (errno != EINTR) throw std::system_error(errno, std::system_category(), "poll");
    }
    do {
      next_ = (next_ + 1) % ends_.size();
    } while (polled[next_].revents == 0);
    return polled[next_].fd;
  }

  std::vector<WorkerPipes> ends_;
  std::vector<std::byte> bytes_;
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<BatchLanes> make_batch_lanes(const std::string& kind, std::size_t workers) {
  if (kind == "channel") return std::make_unique<ChannelLanes>();
  return std::make_unique<PipeLanes>(workers);
}

}  // namespace cowshed::bench
