#include "channel_traffic.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <span>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#include "channel_ways.h"
#include "peer.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;
using Message = std::span<const std::byte>;

constexpr std::size_t kMost = 8;            // senders, and receivers
constexpr unsigned kPatienceSeconds = 180;  // what waits for a lost message would wait for ever

// A message begins with its sender and its number, from 1 on; its other words follow from the
// sender.
constexpr std::uint64_t kEnd = ~std::uint64_t{0};  // the message that ends a receiver's part
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
std::uint64_t checksum_of(std::size_t senders, std::uint64_t first, std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t sender = 0; sender < senders; ++sender)
    for (std::uint64_t i = 0; i < count; ++i) sum += scattered(stamp_of(sender, first + i));
  return sum;
}

class Outgoing {
 public:
  Outgoing(std::size_t sender, std::size_t size) : sender_(sender), words_(size / 8) {
    for (std::size_t i = 1; i < words_.size(); ++i) words_[i] = word_of(sender, i);
  }
  Message next() { return stamped(stamp_of(sender_, ++number_)); }
  Message end() { return stamped(kEnd); }

 private:
  Message stamped(std::uint64_t stamp) {
    words_[0] = stamp;
    return std::as_bytes(std::span(words_));
  }

  std::uint64_t sender_;
  std::uint64_t number_ = 0;
  std::vector<std::uint64_t> words_;
};

// What one receiver got.  Throws std::runtime_error of what it should not have got.
class Incoming {
 public:
  // `whole`: every word is compared; else the first, and a byte of each cache line is read.
  Incoming(std::size_t size, bool whole) : size_(size), whole_(whole) {}

  // Whether it was a message, rather than an end.
  bool take(Message message) {
    if (message.size() != size_) throw std::runtime_error("a message of another size");
    const std::uint64_t stamp = word(message, 0);
    if (stamp == kEnd) return false;
    const std::uint64_t sender = stamp >> kSenderShift;
    const std::uint64_t number = stamp ^ sender << kSenderShift;
    if (sender >= kMost || number <= last_.at(sender)) {
      throw std::runtime_error(fmt::format(
          "message {} of sender {} is doubled, out of order or damaged", number, sender));
    }
    last_.at(sender) = number;
    ++count_;
    checksum_ += scattered(stamp);
    whole_ ? compare(message, sender) : read(message);
    return true;
  }

  std::uint64_t count() const { return count_; }
  std::uint64_t checksum() const { return checksum_; }

 private:
  static std::uint64_t word(Message message, std::size_t index) {
    std::uint64_t value = 0;
    std::memcpy(&value, message.data() + index * 8, sizeof value);
    return value;
  }
  static void read(Message message) {
    for (std::size_t at = 64; at < message.size(); at += 64)
      (void)*static_cast<const volatile std::byte*>(&message[at]);
  }
  static void compare(Message message, std::uint64_t sender) {
    std::uint64_t differences = 0;
    for (std::size_t i = 1; i < message.size() / 8; ++i)
      differences |= word(message, i) ^ word_of(sender, i);
    if (differences != 0) throw std::runtime_error("a message has arrived with other content");
  }

  std::size_t size_;
  bool whole_;
  std::uint64_t count_ = 0;
  std::uint64_t checksum_ = 0;
  std::array<std::uint64_t, kMost> last_{};  // number of each sender
};

enum class Order : std::uint64_t { prepare, whole, timed, end };

// What one process tells.
struct alignas(128) Account {
  std::uint64_t count;
  std::uint64_t checksum;
  std::uint64_t begin;  // when the first was sent
  std::uint64_t end;    // when the last came
};

struct Shared {
  std::array<Account, kMost> senders;
  std::array<Account, kMost> receivers;
};

class Traffic final : public SubjectWork {
 public:
  Traffic(const std::string& way, const Shape& shape, std::uint64_t count)
      : shape_(shape),
        count_(count),
        way_(make_way(way, shape)),
        shared_(new(shared_memory(sizeof(Shared))) Shared{}),
        trips_(static_cast<std::uint64_t*>(shared_memory(count * sizeof(std::uint64_t)))) {
    for (std::size_t i = 0; i < shape.receivers; ++i)
      receivers_.push_back(start(&Traffic::receive, i, shape.senders + i));
    for (std::size_t i = 0; i < shape.senders; ++i) senders_.push_back(start(&Traffic::send, i, i));
    order(receivers_, Order::prepare);
    finish(receivers_);
    order(senders_, Order::prepare);
    finish(senders_);
  }

  json answer(const json& question) override {
    alarm(kPatienceSeconds);
    const Order what = question["whole"] ? Order::whole : Order::timed;
    order(receivers_, what);
    order(senders_, what);
    finish(senders_);
    if (shape_.receivers > 1) {  // none of them knows how many it gets
      senders_.front()->start(static_cast<std::uint64_t>(Order::end));
      senders_.front()->result();
    }
    finish(receivers_);
    alarm(0);
    verify();
    sent_ += count_;
    return figures();
  }

 private:
  using Peers = std::vector<std::unique_ptr<Peer>>;
  using Serve = void (Traffic::*)(std::size_t index, Order order);

  std::unique_ptr<Peer> start(Serve serve, std::size_t index, std::size_t cpu) {
    return std::make_unique<Peer>(
        [this, serve, index](std::uint64_t what) -> std::uint64_t {
          (this->*serve)(index, static_cast<Order>(what));
          return 0;
        },
        cpu);
  }
  static void order(const Peers& peers, Order what) {
    for (const auto& peer : peers) peer->start(static_cast<std::uint64_t>(what));
  }
  static void finish(const Peers& peers) {
    for (const auto& peer : peers) peer->result();
  }

  // In a sender.
  void send(std::size_t index, Order order) {
    if (order == Order::prepare) {
      port_ = way_->sender();
      outgoing_ = std::make_unique<Outgoing>(index, shape_.size);
    } else if (order == Order::end) {
      for (std::size_t i = 0; i < shape_.receivers; ++i) port_->send(outgoing_->end());
    } else {
      Account& account = shared_->senders.at(index);
      account.begin = now_ns();
      if (shape_.back) ask(order == Order::whole);
      else
        for (std::uint64_t i = 0; i < count_; ++i) port_->send(outgoing_->next());
      account.end = now_ns();
    }
  }
  void ask(bool whole) {
    Incoming incoming(shape_.size, whole);
    for (std::uint64_t i = 0; i < count_; ++i) {
      const Message message = outgoing_->next();
      const std::uint64_t before = now_ns();
      port_->send(message);
      incoming.take(port_->receive());
      trips_[i] = now_ns() - before;
    }
    if (incoming.checksum() != checksum_of(1, asked_ + 1, count_))
      throw std::runtime_error("other answers than questions");
    asked_ += count_;
  }

  // In a receiver.
  void receive(std::size_t index, Order order) {
    if (order == Order::prepare) {
      port_ = way_->receiver();
      return;
    }
    Account& account = shared_->receivers.at(index);
    Incoming incoming(shape_.size, order == Order::whole);
    while (shape_.receivers > 1 || incoming.count() < shape_.senders * count_) {
      const Message message = port_->receive();
      if (!incoming.take(message)) break;
      if (shape_.back) port_->send(message);
      if (shape_.receivers > 1) account.end = now_ns();
    }
    if (shape_.receivers == 1) account.end = now_ns();
    account.count = incoming.count();
    account.checksum = incoming.checksum();
  }

  void verify() const {
    std::uint64_t received = 0;
    std::uint64_t checksum = 0;
    for (const Account& account : shared_->receivers) {
      received += account.count;
      checksum += account.checksum;
    }
    if (received != shape_.senders * count_ ||
        checksum != checksum_of(shape_.senders, sent_ + 1, count_)) {
      throw std::runtime_error("other messages arrived than were sent");
    }
  }

  json figures() const {
    std::uint64_t begin = shared_->senders[0].begin;
    std::uint64_t end = 0;
    for (std::size_t i = 0; i < shape_.senders; ++i)
      begin = std::min(begin, shared_->senders.at(i).begin);
    for (const Account& account : shape_.back ? shared_->senders : shared_->receivers)
      end = std::max(end, account.end);
    json result = nanoseconds(static_cast<double>(end - begin) /
                              static_cast<double>(shape_.senders * count_));
    if (shape_.back) {
      std::vector<std::uint64_t> sorted(trips_, trips_ + count_);
      std::sort(sorted.begin(), sorted.end());
      result["p50"] = sorted[sorted.size() / 2];
      result["p99"] = sorted[sorted.size() * 99 / 100];
    }
    return result;
  }

  const Shape shape_;
  const std::uint64_t count_;  // by each sender
  std::uint64_t sent_ = 0;     // by each sender, before
  std::unique_ptr<Way> way_;
  Shared* shared_;
  std::uint64_t* trips_;  // ns each
  Peers receivers_;
  Peers senders_;

  // Of one process.
  std::unique_ptr<Port> port_;
  std::unique_ptr<Outgoing> outgoing_;
  std::uint64_t asked_ = 0;
};

}  // namespace

std::unique_ptr<SubjectWork> make_traffic_work(const json& configuration) {
  const Shape shape{configuration["size"], configuration["senders"], configuration["receivers"],
                    configuration["back"]};
  return std::make_unique<Traffic>(configuration["way"], shape, configuration["count"]);
}

}  // namespace cowshed::bench
