#include "channel_rivals_party.h"

#include <exception>
#include <fmt/format.h>
#include <stdexcept>

#include "peer.h"

namespace cowshed::bench {

void Party::serve(Order order) {
  try {
    if (order == Order::prepare) {
      prepare();
    } else if (order == Order::end) {
      end();
    } else {
      work(order == Order::whole);
    }
    account_.done = true;
  } catch (const std::exception& failure) {
    Shared& shared = traffic_.shared;
    if (!shared.failing.exchange(true)) {
      fmt::format_to_n(shared.why.data(), shared.why.size() - 1, "{}", failure.what());
      shared.failed = true;
    }
    throw;
  }
}

std::span<const std::byte> Party::await() const {
  auto message = port_->receive();
  while (message.empty() && !traffic_.shared.ending) message = port_->receive();
  return message;
}

void Sender::prepare() {
  port_ = traffic_.way.sender(index_);
  outgoing_ = std::make_unique<Outgoing>(index_, traffic_.shape.size);
}

void Sender::work(bool whole) {
  account_.begin = now_ns();
  if (traffic_.shape.back) {
    ask(whole);
  } else {
    for (std::uint64_t i = 0; i < traffic_.count; ++i) port_->send(outgoing_->next());
  }
  account_.end = now_ns();
}

void Sender::ask(bool whole) {
  Incoming incoming(traffic_.shape.size, whole);
  for (std::uint64_t i = 0; i < traffic_.count; ++i) {
    const auto message = outgoing_->next();
    const std::uint64_t before = now_ns();
    port_->send(message);
    incoming.take(await());
    traffic_.trips[i] = now_ns() - before;
  }
  if (incoming.checksum() != checksum_of(1, asked_ + 1, traffic_.count)) {
    throw std::runtime_error("other answers than questions");
  }
  asked_ += traffic_.count;
}

void Sender::end() {
  for (std::size_t i = 0; i < traffic_.shape.receivers; ++i) port_->send(outgoing_->end());
}

void Receiver::prepare() { port_ = traffic_.way.receiver(index_); }

void Receiver::work(bool whole) {
  const Shape& shape = traffic_.shape;
  Incoming incoming(shape.size, whole);
  while (shape.receivers > 1 || incoming.count() < shape.senders * traffic_.count) {
    const auto message = await();
    if (message.empty() || !incoming.take(message)) break;
    if (shape.back) port_->send(message);
    if (shape.receivers > 1) account_.end = now_ns();
    account_.count.store(incoming.count(), std::memory_order_relaxed);
  }
  if (shape.receivers == 1) account_.end = now_ns();
  account_.checksum = incoming.checksum();
}

}  // namespace cowshed::bench
