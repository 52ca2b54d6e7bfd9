#include "channel_work.h"

#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <linux/futex.h>
#include <span>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/channel.h>

#include "channel_traffic.h"
#include "got.h"
#include "machine.h"
#include "peer.h"
#include "statistics.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace size_literals;
using namespace std::chrono_literals;

constexpr std::uint64_t kSlots = 1024;

struct Numbered {
  std::uint64_t number;
  std::array<std::byte, 56> text;
};

// From before the send to when a peer that slept has the message.
class Asleep : public SubjectWork {
 public:
  explicit Asleep(const json& configuration)
      : variant_(configuration["variant"]),
        count_(configuration["count"]),
        word_(new(shared_memory(4096)) std::atomic<std::uint32_t>(0)),
        sent_at_(reinterpret_cast<std::atomic<std::uint64_t>*>(word_ + 64)),
        channel_(got(Channel<Numbered>::create())),
        bare_(variant_ == "futex"),
        peer_([this](std::uint64_t count) { return serve(count); }) {
    pin_to_cpu(0);
    expect_sleep();
  }

  json answer(const json&) override {
    peer_.start(count_);
    for (std::uint64_t i = 0; i < count_; ++i) {
      std::this_thread::sleep_for(200us);
      send();
    }
    return nanoseconds(static_cast<double>(peer_.result()));
  }

 private:
  static constexpr std::uint64_t kCheck = 0;  // messages: one that tells whether it was slept for

  // That the peer sleeps, unless it is so late each time that the message is there.
  void expect_sleep() {
    for (int i = 0; i < 20; ++i) {
      peer_.start(kCheck);
      std::this_thread::sleep_for(10ms);
      send();
      if (peer_.result() > 0) return;
    }
    throw std::runtime_error(variant_ + ": the receiver does not sleep");
  }

  void send() {
    if (bare_) {
      *sent_at_ = now_ns();
      ++*word_;
      syscall(SYS_futex, word_, FUTEX_WAKE, 1, nullptr, nullptr, 0);
    } else {
      got(channel_.send({now_ns(), {}}));
    }
  }

  // When it was sent.
  std::uint64_t receive() {
    if (!bare_) return got(channel_.receive()).number;
    while (word_->load() == seen_)
      syscall(SYS_futex, word_, FUTEX_WAIT, seen_, nullptr, nullptr, 0);
    ++seen_;
    return *sent_at_;
  }

  std::uint64_t serve(std::uint64_t count) {
    if (count == kCheck) {
      const std::uint64_t before = times_slept();
      receive();
      return times_slept() - before;
    }
    std::vector<double> delays;
    std::uint64_t last_sent_at = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t sent_at = receive();
      const std::uint64_t now = now_ns();
      if (sent_at < last_sent_at || sent_at > now)
        throw std::runtime_error(variant_ + ": another message than was sent");
      last_sent_at = sent_at;
      delays.push_back(static_cast<double>(now - sent_at));
    }
    return static_cast<std::uint64_t>(median(delays));
  }

  static std::uint64_t times_slept() {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return static_cast<std::uint64_t>(usage.ru_nvcsw);
  }

  std::string variant_;
  std::uint64_t count_;
  std::atomic<std::uint32_t>* word_;
  std::atomic<std::uint64_t>* sent_at_;
  std::uint32_t seen_ = 0;
  Channel<Numbered> channel_;
  bool bare_;
  Peer peer_;
};

// From the SIGKILL of a process that holds a lock to when another has taken it over.
class Death : public SubjectWork {
 public:
  explicit Death(const json&) { pin_to_cpu(0); }

  json answer(const json&) override {
    auto channel = got(Channel<Numbered>::create());
    const auto constants = channel_layout::kPage;
    void* memory = mmap(nullptr, constants + sizeof(channel_layout::Control),
                        PROT_READ | PROT_WRITE, MAP_SHARED, channel.descriptors().segment, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("mmap");
    auto& control =
        *reinterpret_cast<channel_layout::Control*>(static_cast<std::byte*>(memory) + constants);
    got(channel.send({}));
    double delay = 0;
    {
      const Peer holder([&](std::uint64_t) -> std::uint64_t {
        got(channel.send({}));
        control.sender.lock.holder =
            std::uint64_t{control.parties[1].id} << 32U | static_cast<std::uint32_t>(getpid());
        return 0;
      });
      holder.start(0);
      holder.result();
      std::atomic<std::uint64_t> killed = 0;
      const std::jthread killer([&] {
        std::this_thread::sleep_for(20ms);
        killed = now_ns();
        kill(holder.pid(), SIGKILL);
      });
      got(channel.send({}));
      const std::uint64_t sent_at = now_ns();
      const std::uint64_t killed_at = killed;
      if (killed_at == 0) throw std::runtime_error("a send did not wait for the lock's holder");
      delay = static_cast<double>(sent_at - killed_at);
    }
    munmap(memory, constants + sizeof(channel_layout::Control));
    return nanoseconds(delay);
  }
};

// In each page, which one it is.
void write_pages(std::span<std::byte> bytes) {
  for (std::size_t at = 0; at + sizeof at <= bytes.size(); at += 4_KiB)
    std::memcpy(&bytes[at], &at, sizeof at);
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

// From before the send of a moved buffer, or of 64 bytes, to when a spinning peer has it.  Before
// each, a buffer of "size" is made, and all its pages are written to.
class Moved : public SubjectWork {
 public:
  explicit Moved(const json& configuration)
      : size_(configuration["size"]),
        count_(configuration["count"]),
        small_(configuration["small"]),
        sent_at_(new(shared_memory(4096)) std::atomic<std::uint64_t>(0)),
        channel_(got(Channel<Bytes>::create({.slots = kSlots, .memory = 1_GiB}))),
        peer_([this](std::uint64_t count) { return serve(count); }) {
    pin_to_cpu(0);
    peer_.start(2 * kSlots);  // every slot has been used
    for (std::uint64_t i = 0; i < 2 * kSlots; ++i) send(got(channel_.loan(64)));
    peer_.result();
    peer_.start(kCheck);
    auto checked = got(channel_.loan(size_));
    write_pages(checked.span());
    send(std::move(checked));
    if (peer_.result() != 1) throw std::runtime_error("another buffer than was sent");
  }

  json answer(const json&) override {
    peer_.start(count_);
    for (std::uint64_t i = 0; i < count_; ++i) {
      auto buffer = got(channel_.loan(size_));
      write_pages(buffer.span());
      auto small = got(channel_.loan(64));
      send(std::move(small_ ? small : buffer));
    }
    return nanoseconds(static_cast<double>(peer_.result()));
  }

 private:
  static constexpr std::uint64_t kCheck = 0;  // messages: one whose contents are looked at

  void send(Loan<std::byte>&& bytes) {
    const std::uint64_t begin = now_ns();
    *sent_at_ = begin;
    got(std::move(bytes).commit());
    while (sent_at_->load() == begin)  // the peer has it
      _mm_pause();
  }

  Bytes receive() {
    auto received = channel_.try_receive();
    while (!received) received = channel_.try_receive();
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
      delays.push_back(static_cast<double>(now_ns() - sent_at_->load()));
      received = Bytes();
      *sent_at_ = 0;
    }
    return static_cast<std::uint64_t>(median(delays));
  }

  std::size_t size_;
  std::uint64_t count_;
  bool small_;
  std::atomic<std::uint64_t>* sent_at_;
  Channel<Bytes> channel_;
  Peer peer_;
};

}  // namespace

std::unique_ptr<SubjectWork> make_channel_work(const json& configuration) {
  const std::string work = configuration["work"];
  if (work == "traffic") return make_traffic_work(configuration);
  if (work == "asleep") return std::make_unique<Asleep>(configuration);
  if (work == "moved") return std::make_unique<Moved>(configuration);
  return std::make_unique<Death>(configuration);
}

}  // namespace cowshed::bench
