#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "channel_rivals_ways.h"

// Pipes and sockets: what is read and written by descriptor.
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
      const ssize_t got = read(in_, buffer_.data() + end_, buffer_.size() - end_);
      if (got < 0 && errno == EAGAIN) continue;  // polled
      if (got <= 0) fail("read");
      end_ += static_cast<std::size_t>(got);
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

class FileWay : public Way {
 public:
  explicit FileWay(const Shape& shape) : shape_(shape) {}

  std::unique_ptr<Port> sender(std::size_t) override {
    return std::make_unique<FilePort>(shape_.back ? back_in_ : -1, out_, shape_, true);
  }
  std::unique_ptr<Port> receiver(std::size_t) override {
    return std::make_unique<FilePort>(in_, back_out_, shape_, shape_.receivers == 1);
  }

 protected:
  const Shape shape_;  // NOLINT(*-non-private-member-variables-in-classes)
  int in_ = -1;
  int out_ = -1;
  int back_in_ = -1;
  int back_out_ = -1;
};

class PipeWay final : public FileWay {
 public:
  PipeWay(const Shape& shape, bool polled) : FileWay(shape) {
    open(in_, out_, polled);
    if (shape.back) open(back_in_, back_out_, polled);
  }

 private:
  static void open(int& in, int& out, bool polled) {
    std::array<int, 2> ends{};
    if (pipe(ends.data()) != 0) fail("pipe");
    if (fcntl(ends[1], F_SETPIPE_SZ, kBuffer) < kBuffer) fail("F_SETPIPE_SZ");
    if (polled && fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) fail("O_NONBLOCK");
    in = ends[0];
    out = ends[1];
  }
};

class SocketWay final : public FileWay {
 public:
  explicit SocketWay(const Shape& shape) : FileWay(shape) {
    // Of several that read a stream, each might get a part of a message.
    const int type = shape.senders + shape.receivers > 2 ? SOCK_SEQPACKET : SOCK_STREAM;
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, type, 0, ends.data()) != 0) fail("socketpair");
    for (const int end : ends) {
      if (setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &kBuffer, sizeof kBuffer) != 0 &&
          setsockopt(end, SOL_SOCKET, SO_SNDBUF, &kBuffer, sizeof kBuffer) != 0) {
        fail("SO_SNDBUF");
      }
    }
    socklen_t length = sizeof granted_;
    if (getsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &granted_, &length) != 0) fail("SO_SNDBUF");
    out_ = back_in_ = ends[0];
    in_ = back_out_ = ends[1];
  }

  std::string settings() const override {
    return fmt::format("SO_SNDBUF of {} KiB", granted_ / 1024);
  }

 private:
  int granted_ = 0;
};

}  // namespace

std::unique_ptr<Way> make_pipe_way(const Shape& shape) {
  return std::make_unique<PipeWay>(shape, false);
}
std::unique_ptr<Way> make_polled_pipe_way(const Shape& shape) {
  return std::make_unique<PipeWay>(shape, true);
}
std::unique_ptr<Way> make_socket_way(const Shape& shape) {
  return std::make_unique<SocketWay>(shape);
}

}  // namespace cowshed::bench
