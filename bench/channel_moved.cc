#include "channel_moved.h"

#include <array>
#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <immintrin.h>
#include <span>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/channel.h>

#include "channel_lanes.h"
#include "got.h"
#include "machine.h"
#include "peer.h"
#include "statistics.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace size_literals;

// A byte of each cache line.
void read_all(std::span<const std::byte> bytes) {
  for (std::size_t at = 0; at < bytes.size(); at += 64) {
    (void)*static_cast<const volatile std::byte*>(&bytes[at]);
  }
}

// A byte of each page: all is mapped then.
void touch_all(std::span<const std::byte> bytes) {
  for (std::size_t at = 0; at < bytes.size(); at += 4_KiB) {
    (void)*static_cast<const volatile std::byte*>(&bytes[at]);
  }
}

// In each page, which one it is.
void write_pages(std::span<std::byte> bytes) {
  for (std::size_t at = 0; at + sizeof at <= bytes.size(); at += 4_KiB) {
    std::memcpy(&bytes[at], &at, sizeof at);
  }
}
bool are_written(std::span<const std::byte> bytes, std::size_t size) {
  if (bytes.size() != size) return false;
  for (std::size_t at = 0; at + sizeof at <= size; at += 4_KiB) {
    std::size_t found = 0;
    std::memcpy(&found, &bytes[at], sizeof found);
    if (found != at) return false;
  }
  return true;
}

// What the peer does with a message before its time ends.
void take(const std::string& until, std::span<const std::byte> bytes) {
  if (until == "mapped") {
    touch_all(bytes);
  } else if (until == "read") {
    read_all(bytes);
  }
}

// From before the send of a moved buffer, or of 64 bytes, to when a spinning peer has it.  Before
// each, a buffer of "size" is made, and all its pages are written to.
class Moved : public SubjectWork {
 public:
  explicit Moved(const json& configuration)
      : size_(configuration["size"]),
        count_(configuration["count"]),
        until_(configuration["until"]),
        small_(configuration.value("small", false)),
        sent_at_(new(shared_memory(4096)) std::atomic<std::uint64_t>(0)),
        channel_(got(Channel<Bytes>::create({.slots = kSlots, .memory = 2_GiB}))),
        peer_([this](std::uint64_t count) { return serve(count); }) {
    pin_to_cpu(0);
    peer_.start(2 * kSlots);  // every slot has been used
    for (std::uint64_t i = 0; i < 2 * kSlots; ++i) {
      send(got(channel_.buffer(64)));
    }
    peer_.result();
    peer_.start(kCheck);
    auto checked = got(channel_.buffer(size_));
    write_pages({checked.data(), size_});
    send(std::move(checked));
    if (peer_.result() != 1) throw std::runtime_error("another buffer than was sent");
  }

  json answer(const json&) override {
    peer_.start(count_);
    for (std::uint64_t i = 0; i < count_; ++i) {
      auto buffer = got(channel_.buffer(size_));
      write_pages({buffer.data(), size_});
      auto small = got(channel_.buffer(64));
      send(std::move(small_ ? small : buffer));
    }
    return nanoseconds(static_cast<double>(peer_.result()));
  }

 private:
  static constexpr std::uint64_t kCheck = 0;  // messages: one whose contents are looked at

  void send(Bytes&& bytes) {
    const std::uint64_t begin = now_ns();
    *sent_at_ = begin;
    got(channel_.send(std::move(bytes)));
    while (sent_at_->load() == begin) {  // the peer has it
      _mm_pause();
    }
  }

  Bytes receive() {
    auto received = channel_.try_receive();
    while (!received) {
      received = channel_.try_receive();
    }
    return std::move(*received);
  }
  std::uint64_t serve(std::uint64_t count) {
    if (count == kCheck) {
      const bool is_right = are_written(receive().span(), size_);
      *sent_at_ = 0;
      return is_right ? 1 : 0;
    }
    std::vector<double> delays;
    for (std::uint64_t i = 0; i < count; ++i) {
      Bytes received = receive();
      take(until_, received.span());
      delays.push_back(static_cast<double>(now_ns() - sent_at_->load()));
      received = Bytes();
      *sent_at_ = 0;
    }
    return static_cast<std::uint64_t>(median(delays));
  }

  std::size_t size_;
  std::uint64_t count_;
  std::string until_;
  bool small_;
  std::atomic<std::uint64_t>* sent_at_;
  Channel<Bytes> channel_;
  Peer peer_;
};

// All of a buffer through a pipe of the largest size that is allowed, into a buffer.
class Piped : public SubjectWork {
 public:
  explicit Piped(const json& configuration)
      : size_(configuration["size"]),
        until_(configuration["until"]),
        buffer_(size_),
        peer_(make_peer()) {
    write_pages(buffer_);
    pin_to_cpu(0);
  }

  json answer(const json&) override {
    peer_.start(size_);
    peer_.result();  // it has its buffer
    peer_.start(size_);
    const std::uint64_t begin = now_ns();
    for (std::size_t done = 0; done < size_;) {
      const ssize_t written = write(ends_[1], buffer_.data() + done, size_ - done);
      if (written <= 0) {
        throw std::runtime_error("write to a pipe");
      }
      done += static_cast<std::size_t>(written);
    }
    const std::uint64_t end = peer_.result();
    if (end == 0) throw std::runtime_error("other bytes than were written to the pipe");
    return nanoseconds(static_cast<double>(end - begin));
  }

 private:
  Peer::Work make_peer() {
    if (pipe(ends_.data()) != 0) {
      throw std::runtime_error("pipe");
    }
    fcntl(ends_[1], F_SETPIPE_SZ, 1 << 20);
    return [this](std::uint64_t size) -> std::uint64_t {
      if (received_.size() != size) {
        received_.assign(size, std::byte{0});
        return 0;
      }
      for (std::size_t done = 0; done < size;) {
        const ssize_t got_now = read(ends_[0], received_.data() + done, size - done);
        if (got_now <= 0) {
          throw std::runtime_error("read from a pipe");
        }
        done += static_cast<std::size_t>(got_now);
      }
      take(until_, received_);
      const std::uint64_t end = now_ns();
      return are_written(std::exchange(received_, {}), size) ? end : 0;
    };
  }

  std::size_t size_;
  std::string until_;
  std::vector<std::byte> buffer_;
  std::vector<std::byte> received_;
  std::array<int, 2> ends_{};
  Peer peer_;
};

}  // namespace

std::unique_ptr<SubjectWork> make_moved_work(const json& configuration) {
  return std::make_unique<Moved>(configuration);
}
std::unique_ptr<SubjectWork> make_piped_work(const json& configuration) {
  return std::make_unique<Piped>(configuration);
}

}  // namespace cowshed::bench
