#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <fmt/format.h>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/channel.h>

#include "../family.h"
#include "../process.h"
#include "../subject.h"
#include "lines.h"

// Messages through channels, and through what else there is.
namespace cowshed::bench {
namespace {

// A message begins with its number, from 1 on; its other words are known.  The last one is kEnd.
constexpr std::uint64_t kEnd = ~std::uint64_t{0};

std::uint64_t word_of(std::uint64_t index) { return (index + 1) * 0x9e3779b97f4a7c15; }

std::uint64_t times_slept() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_nvcsw);
}

// What one process got.
struct Incoming {
  std::size_t size;
  bool whole;  // every word is compared; else the first, and a byte of each cache line is read
  std::uint64_t count = 0;

  // Returns whether it was a message, and not an end.
  bool take(Message message) {
    if (message.size() != size) throw std::runtime_error("a message of another size");
    const auto word = [message](std::size_t index) {
      std::uint64_t value = 0;
      std::memcpy(&value, message.data() + index * 8, sizeof value);
      return value;
    };
    if (word(0) == kEnd) return false;
    if (word(0) != ++count)
      throw std::runtime_error("a message is lost, doubled, out of order or damaged");
    for (std::size_t at = 64; at < size; at += 64)
      (void)*static_cast<const volatile std::byte*>(&message[at]);
    for (std::size_t i = 1; whole && i < size / 8; ++i)
      if (word(i) != word_of(i))
        throw std::runtime_error("a message has arrived with other content");
    return true;
  }
};

// A sender and a receiver, each a process on a CPU of its own where there are enough.  The first
// turn compares all and uses every slot, the second is timed.
class Traffic {
 public:
  // `count` messages are sent, or answered.
  Traffic(const std::string& way, const Shape& shape, std::uint64_t count)
      : shape_(shape), count_(count), there_(make_line(way, shape)) {
    if (shape.back) back_ = make_line(way, shape);
    trips_ = static_cast<std::uint64_t*>(shared_memory((count + 1) * sizeof *trips_));
    shared_ = new (shared_memory(sizeof(Shared))) Shared{};
    both_ = shared_barrier(2);
  }

  // ns a message, from the first send until the last was received; of round trips the median, and
  // of paced messages the median from the send until it is received.  Throws std::runtime_error if
  // a message is lost, doubled, damaged or out of order.
  double run() {
    Child receiver(1, [this] { in_turns(&Traffic::receive); });
    Child sender(0, [this] { in_turns(&Traffic::send); });
    receiver.join();
    sender.join();
    if (shape_.back || shape_.paced) return median({trips_, trips_ + count_});
    return static_cast<double>(shared_->end - shared_->begin) / static_cast<double>(count_ + 1);
  }

 private:
  struct Shared {  // of the timed turn
    std::uint64_t begin;
    std::uint64_t end;
  };

  void in_turns(void (Traffic::*serve)(bool)) {
    alarm(60);  // what waits for a lost message would wait for ever
    for (const bool whole : {true, false}) {
      pthread_barrier_wait(both_);
      (this->*serve)(whole);
    }
    pthread_barrier_wait(both_);  // a message may still be in the sender's hands
  }

  void send(bool whole) {
    std::vector<std::uint64_t> words(shape_.size / 8);
    for (std::size_t i = 1; i < words.size(); ++i) words[i] = word_of(i);
    const Message message = std::as_bytes(std::span(words));
    Incoming answers{shape_.size, whole};
    shared_->begin = now_ns();
    for (std::uint64_t i = 0; i < count_; ++i) {
      if (shape_.paced) std::this_thread::sleep_for(std::chrono::microseconds(200));
      words[0] = i + 1;
      const std::uint64_t before = shape_.back || shape_.paced ? now_ns() : 0;
      if (shape_.paced) trips_[i] = before;
      there_->send(message);
      if (!shape_.back) continue;
      if (!answers.take(back_->receive())) throw std::runtime_error("an end instead of an answer");
      trips_[i] = now_ns() - before;
    }
    words[0] = kEnd;
    there_->send(message);
  }

  void receive(bool whole) {
    const std::uint64_t slept = times_slept();
    Incoming incoming{shape_.size, whole};
    for (;;) {
      const Message message = there_->receive();
      if (shape_.paced) trips_[incoming.count] = now_ns() - trips_[incoming.count];
      if (!incoming.take(message)) break;
      if (shape_.back) back_->send(message);
    }
    shared_->end = now_ns();
    if (incoming.count != count_) throw std::runtime_error("not every message has arrived");
    if (!whole && shape_.paced && count_ > 100 && times_slept() - slept < count_ / 2)
      throw std::runtime_error("the receiver does not sleep");
  }

  const Shape shape_;
  const std::uint64_t count_;
  std::unique_ptr<Line> there_;
  std::unique_ptr<Line> back_;
  Shared* shared_;
  pthread_barrier_t* both_;
  std::uint64_t* trips_;  // ns each; while a paced message is under way, when it was sent
};

// Messages of 64 bytes through one Channel of values, between many processes, each on a CPU of its
// own where there are enough.
class Crowd {
 public:
  // `count` messages are sent or received at a time, at most kBatch; one by send() and receive().
  Crowd(std::size_t senders, std::size_t receivers, std::size_t count)
      : senders_(senders), receivers_(receivers), count_(count) {}

  // ns a message, from the first send until the last was received.  Throws std::runtime_error if a
  // message is lost, doubled or damaged, or if a receiver gets a sender's messages out of order.
  double run() {
    std::deque<Child> children;
    for (std::size_t i = 0; i < senders_; ++i) children.emplace_back(i, [=, this] { send(i); });
    for (std::size_t i = 0; i < receivers_; ++i)
      children.emplace_back(senders_ + i, [this] { receive(); });
    for (Child& child : children) child.join();
    if (shared_->received != shared_->sent)
      throw std::runtime_error("a message is lost or doubled");
    return static_cast<double>(shared_->end - shared_->begin) /
           static_cast<double>(shared_->received);
  }

 private:
  static constexpr std::size_t kBatch = 64;
  using Numbers = std::array<std::uint64_t, 8>;  // the sender, and seven times the message's number

  struct Shared {
    std::atomic<std::uint64_t> begin, end, sent, received;
    std::atomic<std::size_t> done;  // senders
  };

  void wait_for_all() {
    alarm(60);  // as Traffic does
    pthread_barrier_wait(all_);
  }

  void send(std::size_t sender) {
    std::vector<Numbers> messages(kBatch);
    std::uint64_t number = 0;
    wait_for_all();
    std::uint64_t unset = 0;
    shared_->begin.compare_exchange_strong(unset, now_ns());
    do {
      for (Numbers& message : messages) {
        message.fill(++number);
        message[0] = sender;
      }
      if (count_ == 1)
        for (const Numbers& message : messages) got(channel_.send(message));
      else got(channel_.send_batch(messages));
    } while (now_ns() < shared_->begin + (is_quick() ? 10'000'000 : 300'000'000));
    shared_->sent += number;
    if (++shared_->done == senders_) channel_.close();
  }

  void receive() {
    std::vector<Numbers> messages(kBatch);
    std::vector<std::uint64_t> last(senders_);
    std::uint64_t received = 0;
    const auto take = [&](const Numbers& message) {
      std::uint64_t& before = last.at(message[0]);
      if (message[1] <= std::exchange(before, message[1]) ||
          std::any_of(message.begin() + 2, message.end(),
                      [&](std::uint64_t number) { return number != message[1]; }))
        throw std::runtime_error("a message is doubled, out of order or damaged");
      ++received;
    };
    wait_for_all();
    if (count_ == 1)
      while (const auto message = channel_.receive()) take(*message);
    else
      while (const auto some = channel_.receive_batch(messages))
        std::for_each_n(messages.begin(), *some, take);
    shared_->end = now_ns();
    shared_->received += received;
  }

  std::size_t senders_;
  std::size_t receivers_;
  std::size_t count_;
  Channel<Numbers> channel_ = got(Channel<Numbers>::create());
  Shared* shared_ = new (shared_memory(sizeof(Shared))) Shared{};
  pthread_barrier_t* all_ = shared_barrier(static_cast<unsigned>(senders_ + receivers_));
};

void add_traffic(const std::string& name, const std::string& way, const Shape& shape,
                 std::uint64_t count) {
  if (is_quick()) count = std::max<std::uint64_t>(count / 100, 8);
  add(fmt::format("channel/{}/{}", name, way),
      [=](benchmark::State&) { return Traffic(way, shape, count).run(); });
}

}  // namespace

void add_channel() {
  const Words all = words_of("channel pipe socketpair boost_queue zeromq values");
  for (const bool spins : {false, true}) {
    const std::string how = spins ? "spins" : "blocks";
    auto small = all;
    if (spins) small.emplace_back("boost_spsc");
    for (const auto& way : small) {
      add_traffic("rate_64B_" + how, way, {.size = 64, .spins = spins}, 100'000);
      add_traffic("trip_64B_" + how, way, {.size = 64, .back = true, .spins = spins}, 2'000);
    }
  }
  add_traffic("rate_64B_blocks", "channel_again", {.size = 64}, 100'000);
  for (const auto& way : all) {
    if (way != "values") {
      add_traffic("rate_1MiB_blocks", way, {.size = 1_MiB}, 128);
      add_traffic("trip_1MiB_blocks", way, {.size = 1_MiB, .back = true}, 250);
    }
    add_traffic("wake_64B", way, {.size = 64, .paced = true}, 300);
  }
  add_traffic("wake_64B", "bare", {.size = 64, .paced = true}, 300);
  add_traffic("trip_64B_spins", "bare", {.size = 64, .back = true, .spins = true}, 2'000);
  struct Processes {
    const char* name;
    std::size_t senders, receivers;
  };
  const std::size_t many = std::clamp<std::size_t>(cpu_count() - 1, 2, 15);
  for (const auto& [name, senders, receivers] :
       {Processes{"1_1", 1, 1}, {"2_2", 2, 2}, {"4_4", 4, 4}, {"1_N", 1, many}, {"N_1", many, 1}})
    for (const std::size_t count : {1U, 64U})
      add(fmt::format("channel/by_{}/{}", count, name),
          [=](benchmark::State&) { return Crowd(senders, receivers, count).run(); });
}

}  // namespace cowshed::bench
