#include "channel_work.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
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

#include "channel_lanes.h"
#include "channel_moved.h"
#include "got.h"
#include "machine.h"
#include "peer.h"
#include "statistics.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace size_literals;
using namespace std::chrono_literals;

ChannelForm form_of(const std::string& variant) {
  return variant.starts_with("single") ? ChannelForm::single_producer_single_consumer
                                       : ChannelForm::general;
}

// Messages through a lane, as fast as they go: time for each.
class Stream : public SubjectWork {
 public:
  explicit Stream(const json& configuration)
      : variant_(configuration["variant"]),
        count_(configuration["count"]),
        lane_(make_lane(variant_)),
        peer_(lane_.receive) {
    pin_to_cpu(0);
  }

  json answer(const json&) override {
    const std::uint64_t begin = now_ns();
    peer_.start(count_);
    lane_.send(count_);
    const std::uint64_t sum = peer_.result();
    const std::uint64_t end = now_ns();
    if (sum != count_ * (count_ - 1) / 2) {
      throw std::runtime_error(variant_ + ": other messages than were sent");
    }
    return nanoseconds(static_cast<double>(end - begin) / static_cast<double>(count_));
  }

 private:
  std::string variant_;
  std::uint64_t count_;
  Lane lane_;
  Peer peer_;
};

// The same through Python's multiprocessing.Queue.
class PythonStream : public SubjectWork {
 public:
  explicit PythonStream(const json& configuration) : count_(configuration["count"]) {}

  json answer(const json&) override {
    const std::string script = R"(
import multiprocessing, time
message = bytes(range(64))
checked = [bytes([number]) * 64 for number in range(256)]
def receive(queue, count, done):
    if [queue.get() for _ in checked] != checked:
        raise RuntimeError("other messages than were put")
    done.send(1)
    for _ in range(count):
        last = queue.get()
    done.send(1)
    if last != message or not queue.empty():
        raise RuntimeError("other messages than were put")
queue = multiprocessing.Queue()
count = )" + std::to_string(count_) +
                               R"(
ours, theirs = multiprocessing.Pipe()
child = multiprocessing.Process(target=receive, args=(queue, count, theirs))
child.start()
theirs.close()
queue.cancel_join_thread()  # nobody waits for a child that has failed
for each in checked:
    queue.put(each)
ours.recv()
begin = time.monotonic_ns()
for _ in range(count):
    queue.put(message)
ours.recv()
print((time.monotonic_ns() - begin) / count)
child.join()
raise SystemExit(child.exitcode)
)";
    const std::string command = "/usr/bin/python3 -c '" + script + "'";
    std::FILE* output = popen(command.c_str(), "r");
    double ns = 0;
    const bool read = output != nullptr && std::fscanf(output, "%lf", &ns) == 1;
    if (output == nullptr || pclose(output) != 0 || !read) {
      throw std::runtime_error("python3 failed");
    }
    return nanoseconds(ns);
  }

 private:
  std::uint64_t count_;
};

// One message to and fro between peers that spin: half the time of a round.
class Turns : public SubjectWork {
 public:
  explicit Turns(const json& configuration)
      : count_(configuration["count"]),
        lines_(new(shared_memory(sizeof(Lines))) Lines),
        there_(got(Channel<Message>::create(
            {.name = "there", .form = form_of(configuration["variant"])}))),
        back_(got(
            Channel<Message>::create({.name = "back", .form = form_of(configuration["variant"])}))),
        bare_(configuration["variant"] == "cache line"),
        peer_([this](std::uint64_t count) { return serve(count); }) {
    pin_to_cpu(0);
  }

  json answer(const json&) override {
    peer_.start(count_);
    const std::uint64_t begin = now_ns();
    for (std::uint64_t i = 1; i <= count_; ++i) {
      if (bare_) {
        lines_->there.store(i, std::memory_order_release);
        wait_for(lines_->back, i);
      } else {
        got(there_.send({i, {}}));
        expect(i, got(back_.receive()));
      }
    }
    const std::uint64_t end = now_ns();
    peer_.result();
    lines_->there = 0;
    lines_->back = 0;
    return nanoseconds(static_cast<double>(end - begin) / 2 / static_cast<double>(count_));
  }

 private:
  struct Lines {
    alignas(128) std::atomic<std::uint64_t> there = 0;
    alignas(128) std::atomic<std::uint64_t> back = 0;
  };

  static void wait_for(const std::atomic<std::uint64_t>& line, std::uint64_t value) {
    while (line.load(std::memory_order_acquire) != value) {
      _mm_pause();
    }
  }
  static void expect(std::uint64_t number, const Message& message) {
    if (message.number != number) throw std::runtime_error("another message than was sent");
  }
  std::uint64_t serve(std::uint64_t count) {
    for (std::uint64_t i = 1; i <= count; ++i) {
      if (bare_) {
        wait_for(lines_->there, i);
        lines_->back.store(i, std::memory_order_release);
      } else {
        expect(i, got(there_.receive()));
        got(back_.send({i, {}}));
      }
    }
    return 0;
  }

  std::uint64_t count_;
  Lines* lines_;
  Channel<Message> there_;
  Channel<Message> back_;
  bool bare_;
  Peer peer_;
};

// From before the send to when a peer that slept has the message.
class Asleep : public SubjectWork {
 public:
  explicit Asleep(const json& configuration)
      : variant_(configuration["variant"]),
        count_(configuration["count"]),
        word_(new(shared_memory(4096)) std::atomic<std::uint32_t>(0)),
        sent_at_(reinterpret_cast<std::atomic<std::uint64_t>*>(word_ + 64)),
        channel_(got(Channel<Message>::create({.form = form_of(variant_)}))),
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
    while (word_->load() == seen_) {
      syscall(SYS_futex, word_, FUTEX_WAIT, seen_, nullptr, nullptr, 0);
    }
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
      if (sent_at < last_sent_at || sent_at > now) {
        throw std::runtime_error(variant_ + ": another message than was sent");
      }
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
  Channel<Message> channel_;
  bool bare_;
  Peer peer_;
};

// From the SIGKILL of a process that holds a lock to when another has taken it over.
class Death : public SubjectWork {
 public:
  explicit Death(const json&) { pin_to_cpu(0); }

  json answer(const json&) override {
    auto channel = got(Channel<Message>::create());
    const auto constants = channel_layout::kPage;
    void* memory = mmap(nullptr, constants + sizeof(channel_layout::Control),
                        PROT_READ | PROT_WRITE, MAP_SHARED, channel.descriptors().segment, 0);
    if (memory == MAP_FAILED) {
      throw std::runtime_error("mmap");
    }
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

}  // namespace

std::unique_ptr<SubjectWork> make_channel_work(const json& configuration) {
  const std::string work = configuration["work"];
  if (work == "stream") return std::make_unique<Stream>(configuration);
  if (work == "python") return std::make_unique<PythonStream>(configuration);
  if (work == "turns") return std::make_unique<Turns>(configuration);
  if (work == "asleep") return std::make_unique<Asleep>(configuration);
  if (work == "moved") return make_moved_work(configuration);
  if (work == "piped") return make_piped_work(configuration);
  return std::make_unique<Death>(configuration);
}

}  // namespace cowshed::bench
