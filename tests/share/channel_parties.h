#pragma once

#include <algorithm>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/channel.h>
#include <cowshed/share/object_channel.h>

#include "channel_ledger.h"
#include "channel_memory.h"
#include "channel_traffic.h"

// Workers that send or receive until the channel is closed, and write all of it into the ledger.
// A traffic says what they send: send() as many as `most` messages, from `id` on, and tells how
// many; receive() calls `note` with what it got, while that is in the thread's hand.
namespace cowshed::test {

// The forms of a call.
enum class Patience : std::uint8_t { forever, timed, never };

inline constexpr std::chrono::milliseconds kTime{2};

template <class Of, class Message>
Expected<void> send_with(Patience patience, Of& channel, Message&& message) {
  switch (patience) {
    case Patience::forever: return channel.send(std::forward<Message>(message));
    case Patience::timed: return channel.send_for(std::forward<Message>(message), kTime);
    default: return channel.try_send(std::forward<Message>(message));
  }
}

template <class Of>
auto receive_with(Patience patience, Of& channel) {
  switch (patience) {
    case Patience::forever: return channel.receive();
    case Patience::timed: return channel.receive_for(kTime);
    default: return channel.try_receive();
  }
}

// One at a time.
template <class Self, class Channel>
struct Singly {
  using Of = Channel;
  static constexpr std::uint64_t kMostInHand = 1;

  static Expected<std::size_t> send(Patience patience, Of& channel, std::uint64_t id, std::size_t) {
    return send_with(patience, channel, Self::make(id)).map([] { return std::size_t{1}; });
  }
  template <class Note>
  static Expected<void> receive(Patience patience, Of& channel, Note&& note) {
    return receive_with(patience, channel).map([&](const auto& message) {
      const std::uint64_t id = Self::id_of(message);
      note(std::span(&id, 1));
    });
  }
};

struct SingleValues : Singly<SingleValues, Values::Of> {
  static auto make(std::uint64_t id) { return Values::make(id); }
  static std::uint64_t id_of(const Values::Message& message) { return Values::id_of(message); }
};

struct BatchedValues {
  using Of = Values::Of;
  static constexpr std::uint64_t kMostInHand = 5;

  static Expected<std::size_t> send(Patience patience, Of& channel, std::uint64_t id,
                                    std::size_t most) {
    std::vector<Values::Message> messages;
    for (std::size_t i = 0; i < most; ++i) {
      messages.push_back(Values::make(id + i));
    }
    return patience == Patience::never ? channel.try_send_batch(messages)
                                       : channel.send_batch(messages);
  }
  template <class Note>
  static Expected<void> receive(Patience patience, Of& channel, Note&& note) {
    std::array<Values::Message, kMostInHand> messages;
    const auto receive_batch = [&] {
      switch (patience) {
        case Patience::forever: return channel.receive_batch(messages);
        case Patience::timed: return channel.receive_batch_for(messages, kTime);
        default: return channel.try_receive_batch(messages);
      }
    };
    return receive_batch().map([&](std::size_t count) {
      std::array<std::uint64_t, kMostInHand> ids{};
      std::transform(messages.begin(), messages.begin() + count, ids.begin(), &Values::id_of);
      note(std::span(ids.data(), count));
    });
  }
};

// In the slot, copied to a block, moved, and moved in a block whose memory goes back to the kernel.
struct AllBytes : Singly<AllBytes, Channel<Bytes>> {
  using Small = CopiedBytes<100>;
  using Copied = CopiedBytes<1000>;
  using Moved = MovedBuffers<20000>;
  using Large = MovedBuffers<(5U << 20U)>;

  static Expected<std::size_t> send(Patience patience, Of& channel, std::uint64_t id, std::size_t) {
    const auto sent = [&]() -> Expected<void> {
      switch (id % 64 == 0 ? 3 : id % 3) {
        case 0: return send_with(patience, channel, std::span<const std::byte>(Small::prepare(id)));
        case 1:
          return send_with(patience, channel, std::span<const std::byte>(Copied::prepare(id)));
        case 2: return send_moved<Moved>(patience, channel, id, 20000);
        default: return send_moved<Large>(patience, channel, id, 5U << 20U);
      }
    }();
    return sent.map([] { return std::size_t{1}; });
  }
  static std::uint64_t id_of(const Bytes& message) {
    switch (message.size()) {
      case 100: return Small::id_of(message);
      case 1000: return Copied::id_of(message);
      case 20000: return Moved::id_of(message);
      default: return Large::id_of(message);
    }
  }

 private:
  template <class As>
  static Expected<void> send_moved(Patience patience, Of& channel, std::uint64_t id,
                                   std::size_t size) {
    const auto get_buffer = [&] {
      switch (patience) {
        case Patience::forever: return channel.buffer(size);
        case Patience::timed: return channel.buffer_for(size, kTime);
        default: return channel.try_buffer(size);
      }
    };
    return get_buffer().and_then([&](Bytes&& buffer) {
      As::fill(buffer, id);
      return send_with(patience, channel, std::move(buffer));
    });
  }
};

struct Order {
  std::uint64_t id = 0;
  std::vector<std::string> lines;

  bool operator==(const Order&) const = default;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(id, lines);
  }
};

// In the slot or in a block, as they are large.
struct Objects : Singly<Objects, ObjectChannel<Order>> {
  static Order make(std::uint64_t id) {
    return {id,
            std::vector<std::string>(id % 4 == 0 ? 200 : id % 3, "order " + std::to_string(id))};
  }
  static std::uint64_t id_of(const Order& order) {
    return make(order.id) == order ? order.id : kBroken;
  }
};

// Whether a call may fail so: "timed forms return peer_stopped" while somebody is stopped, "and
// blocking ones wait".
inline bool is_documented(ErrorCode code, Patience patience, bool somebody_stopped) {
  switch (code) {
    case ErrorCode::closed: return true;
    case ErrorCode::would_block: return patience == Patience::never;
    case ErrorCode::timed_out: return patience == Patience::timed;
    case ErrorCode::peer_stopped: return patience != Patience::forever && somebody_stopped;
    default: return false;
  }
}

// Calls `attempt` with one form or another until the channel is closed.
template <class Attempt>
void until_closed(const Ledger& ledger, std::uint32_t life, Attempt&& attempt) {
  std::mt19937 random(life);
  for (;;) {
    const auto patience = static_cast<Patience>(random() % 3);
    const std::uint32_t stops_over = ledger.stops_over();
    const Expected<void> done = attempt(patience, random());
    if (done) {
      continue;
    }
    const ErrorCode code = done.error().code;
    if (!is_documented(code, patience, ledger.stops_begun() != stops_over)) {
      ledger.fail("party " + std::to_string(life) + ", form " +
                  std::to_string(static_cast<int>(patience)) + ": " + done.error().message);
      return;
    }
    if (code == ErrorCode::closed) {
      return;
    }
  }
}

template <class Traffic>
void produce(typename Traffic::Of& channel, const Ledger& ledger, std::uint32_t index) {
  constexpr std::size_t kMost = 7;
  Life& life = ledger.begin(index);
  until_closed(ledger, index, [&](Patience patience, std::size_t random) {
    const std::uint64_t next = life.returned + 1;
    const std::size_t most = Traffic::kMostInHand == 1 ? 1 : 1 + random % kMost;
    life.attempted = life.returned + most;
    const auto sent = Traffic::send(patience, channel, message_id(index, next), most);
    life.returned += sent.value_or(0);
    life.attempted = life.returned.load();
    return sent.map([](std::size_t) {});
  });
  life.ended = ledger.failure().empty();
}

// The hand of this process's only thread: docs/channel.md has the layout.
template <class Of>
class OwnHand {
 public:
  explicit OwnHand(const Of& channel) : memory_(channel) {}

  // The number of the first message in it; some large number when there is none.
  std::uint64_t first() {
    if (hand_ == nullptr) {
      find();
    }
    const std::uint64_t held = hand_ == nullptr ? 0 : hand_->held.load();
    return held == 0 ? ~std::uint64_t{0} : channel_layout::first_of(held);
  }

 private:
  void find() {
    auto& control = memory_.control();
    for (auto& hand : control.hands) {
      const auto party = static_cast<channel_layout::PartyId>(hand.owner.load() >> 32U);
      if (!channel_layout::is_live(party) || channel_layout::is_lost(hand.owner)) {
        continue;
      }
      const auto& owner = control.parties[channel_layout::index_of(party)];
      if (owner.id == party && owner.pid == static_cast<std::uint32_t>(getpid())) {
        hand_ = &hand;
      }
    }
  }

  ChannelMemory memory_;
  channel_layout::Hand* hand_ = nullptr;
};

template <class Traffic>
void consume(typename Traffic::Of& channel, const Ledger& ledger, std::uint32_t index) {
  Life& life = ledger.begin(index);
  OwnHand<typename Traffic::Of> hand(channel);
  until_closed(ledger, index, [&](Patience patience, std::size_t) {
    return Traffic::receive(patience, channel, [&](std::span<const std::uint64_t> ids) {
      std::uint64_t number = hand.first();
      for (const std::uint64_t id : ids) {
        if (id == kBroken) {
          ledger.fail("message " + std::to_string(number) + " is not whole");
          return;
        }
        ledger.note_received(number++, id, index);
      }
      life.taken += ids.size();
    });
  });
  life.ended = ledger.failure().empty();
}

}  // namespace cowshed::test
