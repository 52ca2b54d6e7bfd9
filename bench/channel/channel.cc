#include <array>
#include <atomic>
#include <cstring>
#include <fmt/format.h>
#include <list>
#include <new>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>

#include <cowshed/base/size_literals.h>

#include "../family.h"
#include "../process.h"
#include "../subject.h"
#include "lines.h"

// Messages through channels, and through what else there is.
namespace cowshed::bench {
namespace {

constexpr std::size_t kMost = 4;  // senders, and receivers

// A message begins with its sender and its number, from 1 on; its other words follow from the
// sender.  The last one of each sender is kEnd, which ends a receiver's part.
constexpr std::uint64_t kEnd = ~std::uint64_t{0};
constexpr unsigned kSenderShift = 56;
constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;

std::uint64_t stamp_of(std::uint64_t sender, std::uint64_t number) {
  return sender << kSenderShift | number;
}
std::uint64_t word_of(std::uint64_t sender, std::uint64_t index) {
  return (index + 1) * kOdd ^ sender << kSenderShift;
}
// In a sum: doubled or lost messages do not make up for each other.
std::uint64_t scattered(std::uint64_t stamp) {
  const std::uint64_t mixed = (stamp ^ stamp >> 31U) * kOdd;
  return mixed ^ mixed >> 29U;
}

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
  std::uint64_t checksum = 0;
  std::array<std::uint64_t, kMost> last{};  // number of each sender

  // Returns whether it was a message, and not an end.
  bool take(Message message) {
    if (message.size() != size) throw std::runtime_error("a message of another size");
    const auto word = [message](std::size_t index) {
      std::uint64_t value = 0;
      std::memcpy(&value, message.data() + index * 8, sizeof value);
      return value;
    };
    if (word(0) == kEnd) return false;
    const std::uint64_t sender = word(0) >> kSenderShift;
    const std::uint64_t number = word(0) ^ sender << kSenderShift;
    if (sender >= kMost || number <= last.at(sender))
      throw std::runtime_error("a message is doubled, out of order or damaged");
    last.at(sender) = number;
    ++count;
    checksum += scattered(word(0));
    for (std::size_t at = 64; at < size; at += 64)
      (void)*static_cast<const volatile std::byte*>(&message[at]);
    for (std::size_t i = 1; whole && i < size / 8; ++i)
      if (word(i) != word_of(sender, i))
        throw std::runtime_error("a message has arrived with other content");
    return true;
  }
};

// Processes that send and receive, each on a CPU of its own where there are enough: at first to
// compare all and use every slot, then for the time.
class Traffic {
 public:
  // Each sender sends `count` messages, or is answered `count` times.
  Traffic(const std::string& way, const Shape& shape, std::uint64_t count)
      : shape_(shape), count_(count), there_(make_line(way, shape)) {
    if (shape.back) back_ = make_line(way, shape);
    trips_ = static_cast<std::uint64_t*>(shared_memory((count + 1) * sizeof *trips_));
    shared_ = new (shared_memory(sizeof(Shared))) Shared{};
    all_ = shared_barrier(static_cast<unsigned>(shape.senders + shape.receivers));
  }

  // ns a message, from the first send until the last was received; of round trips the median, and
  // of paced messages the median from the send until it is received.  Throws std::runtime_error if
  // a message is lost, doubled, damaged or out of order.
  double run() {
    std::list<Child> all;
    for (std::size_t i = 0; i < shape_.receivers; ++i)
      all.emplace_back(shape_.senders + i, [this, i] { in_turns(&Traffic::receive, i); });
    for (std::size_t i = 0; i < shape_.senders; ++i)
      all.emplace_back(i, [this, i] { in_turns(&Traffic::send, i); });
    for (Child& child : all) child.join();
    std::uint64_t expected = 0;
    for (std::size_t sender = 0; sender < shape_.senders; ++sender)
      for (std::uint64_t n = 1; n <= count_; ++n) expected += 2 * scattered(stamp_of(sender, n));
    if (shared_->count != 2 * shape_.senders * count_ || shared_->checksum != expected)
      throw std::runtime_error("other messages arrived than were sent");
    if (shape_.back || shape_.paced) return median({trips_, trips_ + count_});
    const auto begin = *std::min_element(&shared_->begin[0], &shared_->begin[shape_.senders]);
    const auto end = *std::max_element(shared_->end.begin(), shared_->end.end());
    return static_cast<double>(end - begin) / static_cast<double>(shape_.senders * (count_ + 1));
  }

 private:
  // Of the timed turn, but for the sums.
  struct Shared {
    std::array<std::uint64_t, kMost> begin;  // when each sender sent its first
    std::array<std::uint64_t, kMost> end;    // when each receiver's part ended
    std::atomic<std::uint64_t> count;        // received in both turns
    std::atomic<std::uint64_t> checksum;
  };

  void in_turns(void (Traffic::*serve)(std::size_t, bool), std::size_t index) {
    alarm(60);  // what waits for a lost message would wait for ever
    for (const bool whole : {true, false}) {
      pthread_barrier_wait(all_);
      (this->*serve)(index, whole);
    }
    pthread_barrier_wait(all_);  // a message may still be in the sender's hands
  }

  void send(std::size_t index, bool whole) {
    std::vector<std::uint64_t> words(shape_.size / 8);
    for (std::size_t i = 1; i < words.size(); ++i) words[i] = word_of(index, i);
    const Message message = std::as_bytes(std::span(words));
    Incoming answers{shape_.size, whole};
    shared_->begin.at(index) = now_ns();
    for (std::uint64_t i = 0; i < count_; ++i) {
      if (shape_.paced) std::this_thread::sleep_for(std::chrono::microseconds(200));
      words[0] = stamp_of(index, i + 1);
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

  void receive(std::size_t index, bool whole) {
    const std::uint64_t slept = times_slept();
    Incoming incoming{shape_.size, whole};
    for (;;) {
      const Message message = there_->receive();
      if (shape_.paced) trips_[incoming.count] = now_ns() - trips_[incoming.count];
      if (!incoming.take(message)) break;
      if (shape_.back) back_->send(message);
    }
    shared_->end.at(index) = now_ns();
    shared_->count += incoming.count;
    shared_->checksum += incoming.checksum;
    if (!whole && shape_.paced && count_ > 100 && times_slept() - slept < count_ / 2)
      throw std::runtime_error("the receiver does not sleep");
  }

  const Shape shape_;
  const std::uint64_t count_;
  std::unique_ptr<Line> there_;
  std::unique_ptr<Line> back_;
  Shared* shared_;
  pthread_barrier_t* all_;
  std::uint64_t* trips_;  // ns each; while a paced message is under way, when it was sent
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
    if (way != "zeromq")  // PAIR sockets are for two
      add_traffic("rate_64B_4to4", way, {.size = 64, .senders = 4, .receivers = 4}, 20'000);
    add_traffic("wake_64B", way, {.size = 64, .paced = true}, 300);
  }
  add_traffic("wake_64B", "bare", {.size = 64, .paced = true}, 300);
  add_traffic("trip_64B_spins", "bare", {.size = 64, .back = true, .spins = true}, 2'000);
}

}  // namespace cowshed::bench
