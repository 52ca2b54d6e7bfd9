#include "traffic.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <span>
#include <stdexcept>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>

namespace cowshed::bench {
namespace {

using Message = std::span<const std::byte>;

constexpr unsigned kPatienceSeconds = 60;  // what waits for a lost message would wait for ever

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

std::uint64_t times_slept() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_nvcsw);
}

}  // namespace

class Traffic::Outgoing {
 public:
  Outgoing(std::size_t sender, std::size_t size, std::uint64_t sent)
      : sender_(sender), number_(sent), words_(size / 8) {
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
  std::uint64_t number_;
  std::vector<std::uint64_t> words_;
};

// What one receiver got.
class Traffic::Incoming {
 public:
  // `whole`: every word is compared; else the first, and a byte of each cache line is read.
  Incoming(std::size_t size, bool whole) : size_(size), whole_(whole) {}

  // Returns whether it was a message, and not an end.
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
    for (std::size_t i = 1; i < message.size() / 8; ++i)
      if (word(message, i) != word_of(sender, i))
        throw std::runtime_error("a message has arrived with other content");
  }

  std::size_t size_;
  bool whole_;
  std::uint64_t count_ = 0;
  std::uint64_t checksum_ = 0;
  std::array<std::uint64_t, kMost> last_{};  // number of each sender
};

Traffic::Traffic(const std::string& way, const Shape& shape, std::uint64_t count)
    : shape_(shape),
      count_(count),
      way_(make_way(way, shape)),
      shared_(new(shared_memory(sizeof(Shared))) Shared{}),
      trips_(static_cast<std::uint64_t*>(shared_memory(count * sizeof(std::uint64_t)))) {
  for (std::size_t i = 0; i < shape.receivers; ++i)
    receivers_.push_back(start(&Traffic::receive, i, shape.senders + i));
  for (std::size_t i = 0; i < shape.senders; ++i) senders_.push_back(start(&Traffic::send, i, i));
  for (const Peers* peers : {&receivers_, &senders_}) {
    order(*peers, Order::prepare);
    finish(*peers);
  }
}

std::unique_ptr<Peer> Traffic::start(Serve serve, std::size_t index, std::size_t cpu) {
  return std::make_unique<Peer>(
      [this, serve, index](std::uint64_t what) -> std::uint64_t {
        alarm(kPatienceSeconds);
        const auto order = static_cast<Order>(what);
        (this->*serve)(index, order);
        alarm(0);
        if (order == Order::whole || order == Order::timed) sent_ += count_;
        return 0;
      },
      cpu);
}
void Traffic::order(const Peers& peers, Order what) {
  for (const auto& peer : peers) peer->start(static_cast<std::uint64_t>(what));
}
void Traffic::finish(const Peers& peers) {
  for (const auto& peer : peers) peer->result();
}

// In a sender.
void Traffic::send(std::size_t index, Order order) {
  if (order == Order::prepare) {
    port_ = way_->sender();
    return;
  }
  Outgoing outgoing(index, shape_.size, sent_);
  if (order == Order::end) {
    for (std::size_t i = 0; i < shape_.receivers; ++i) port_->send(outgoing.end());
    return;
  }
  Account& account = shared_->senders.at(index);
  account.begin = now_ns();
  send_all(outgoing, order == Order::whole);
  account.end = now_ns();
}

void Traffic::send_all(Outgoing& outgoing, bool whole) {
  Incoming incoming(shape_.size, whole);
  for (std::uint64_t i = 0; i < count_; ++i) {
    if (shape_.paced) std::this_thread::sleep_for(std::chrono::microseconds(200));
    const Message message = outgoing.next();
    const std::uint64_t before = now_ns();
    if (shape_.paced) trips_[i] = before;
    port_->send(message);
    if (!shape_.back) continue;
    incoming.take(port_->receive());
    trips_[i] = now_ns() - before;
  }
  if (shape_.back && incoming.checksum() != checksum_of(1, sent_ + 1, count_))
    throw std::runtime_error("other answers than questions");
}

// In a receiver.
void Traffic::receive(std::size_t index, Order order) {
  if (order == Order::prepare) {
    port_ = way_->receiver();
    return;
  }
  const std::uint64_t slept = times_slept();
  Account& account = shared_->receivers.at(index);
  Incoming incoming(shape_.size, order == Order::whole);
  while (shape_.receivers > 1 || incoming.count() < shape_.senders * count_) {
    const Message message = port_->receive();
    if (shape_.paced) trips_[incoming.count()] = now_ns() - trips_[incoming.count()];
    if (!incoming.take(message)) break;
    if (shape_.back) port_->send(message);
    if (shape_.receivers > 1) account.end = now_ns();
  }
  if (shape_.receivers == 1) account.end = now_ns();
  account.count = incoming.count();
  account.checksum = incoming.checksum();
  if (shape_.paced && count_ > 100 && times_slept() - slept < count_ / 2)
    throw std::runtime_error("the receiver does not sleep");
}

void Traffic::run(bool whole) {
  const Order what = whole ? Order::whole : Order::timed;
  order(receivers_, what);
  order(senders_, what);
  finish(senders_);
  if (shape_.receivers > 1) {  // none of them knows how many it gets
    senders_.front()->start(static_cast<std::uint64_t>(Order::end));
    senders_.front()->result();
  }
  finish(receivers_);
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
  sent_ += count_;
}

double Traffic::ns_a_message() const {
  std::uint64_t begin = shared_->senders[0].begin;
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < shape_.senders; ++i)
    begin = std::min(begin, shared_->senders.at(i).begin);
  for (const Account& account : shared_->receivers) end = std::max(end, account.end);
  return static_cast<double>(end - begin) / static_cast<double>(shape_.senders * count_);
}

double Traffic::ns_a_trip(double share) const {
  std::vector<std::uint64_t> sorted(trips_, trips_ + count_);
  std::sort(sorted.begin(), sorted.end());
  const auto at = static_cast<std::size_t>(share * static_cast<double>(count_));
  return static_cast<double>(sorted.at(std::min<std::size_t>(at, count_ - 1)));
}

}  // namespace cowshed::bench
