#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/channel/bytes.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/channel/waiting.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/ref.h>

// What Channel<T> is made of.  Not for users.
namespace cowshed::internal {

// How a message of this type is counted.
template <class T>
struct Counted {
  using Type = T;
  static constexpr TransferKind kKind = TransferKind::value;
  static std::uint64_t bytes(const T&) { return sizeof(T); }
};
template <class U>
struct Counted<Ref<U>> {
  using Type = U;
  static constexpr TransferKind kKind = TransferKind::reference;
  static std::uint64_t bytes(const Ref<U>& ref) {
    if constexpr (requires(const U& range) { std::span(range).size_bytes(); }) {
      const U* range = ref.try_get();
      return range == nullptr ? 0 : std::span(*range).size_bytes();
    } else {
      return sizeof(U);
    }
  }
};

class ChannelCore {
 public:
  void close() { segment_->close(); }
  bool closed() const { return segment_->closed(); }
  Expected<int> descriptor() { return segment_->poll_descriptor(); }
  const ChannelDescriptors& descriptors() const { return segment_->descriptors(); }
  ChannelStats stats() const { return segment_->stats(); }
  const ChannelOptions& options() const { return segment_->options(); }

 protected:
  explicit ChannelCore(std::shared_ptr<ChannelSegment> segment) : segment_(std::move(segment)) {}
  ChannelSegment& segment() const { return *segment_; }
  const std::shared_ptr<ChannelSegment>& shared_segment() const { return segment_; }

  // The first attempts to receive; persist() is the rest.  Apart from it, so that little is left to
  // do when a message comes to a thread that spins.
  template <class Try>
  Attempt try_spinning(const Wait& wait, Try&& attempt_once) {
    Attempt attempt = attempt_once();
    if (attempt == Attempt::blocked && wait.mode != Wait::Mode::never) {
      segment_->empty_hand();
      if (spin([this] { return segment_->has_message(); })) attempt = attempt_once();
    }
    return attempt;
  }

  // Attempts until one succeeds or the wait is over.
  template <class Try>
  Expected<void> persist(const Wait& wait, Waiting::For what, Attempt attempt, Try&& attempt_once) {
    Waiting waiting(*segment_, wait, what);
    while (attempt != Attempt::done) {
      if (auto on = waiting.after(attempt); !on) return on;
      attempt = attempt_once();
    }
    return {};
  }

 private:
  std::shared_ptr<ChannelSegment> segment_;
};

template <class T>
class ValueChannel : public ChannelCore {
 public:
  explicit ValueChannel(std::shared_ptr<ChannelSegment> segment)
      : ChannelCore(std::move(segment)),
        row_(TransferCounter("channel", options().name)
                 .row(type_name<typename Counted<T>::Type>(), Counted<T>::kKind)) {}

  static MessageType message_type() {
    // The mangled name is the same in every program.
    return {hash_type(typeid(T).name(), sizeof(T), alignof(T)), type_name<T>(),
            channel_layout::round_up(sizeof(T), 8), false};
  }

  Expected<void> send(const T& message, const Wait& wait) {
    std::uint64_t count = 1;
    const auto attempt = [&] {
      return segment().try_send(count, [&](std::uint64_t number, std::uint64_t) {
        std::memcpy(segment().slot(number), &message, sizeof(T));
      });
    };
    if (const Attempt first = attempt(); first != Attempt::done) [[unlikely]] {
      if (auto sent = persist(wait, Waiting::For::slot, first, attempt); !sent) return sent;
    }
    row_.add(1, Counted<T>::bytes(message));
    return {};
  }

  Expected<T> receive(const Wait& wait) {
    std::array<std::byte, sizeof(T)> bytes;
    std::uint64_t count = 1;
    const auto attempt = [&] {
      return segment().try_receive(count, [&](std::uint64_t number, std::uint64_t) {
        std::memcpy(bytes.data(), segment().slot(number), sizeof(T));
        return true;
      });
    };
    if (const Attempt first = try_spinning(wait, attempt); first != Attempt::done) [[unlikely]] {
      if (auto received = persist(wait, Waiting::For::message, first, attempt); !received)
        return tl::make_unexpected(std::move(received.error()));
    }
    return std::bit_cast<T>(bytes);
  }

  Expected<std::size_t> send_batch(std::span<const T> messages, const Wait& wait) {
    std::size_t sent = 0;
    while (sent < messages.size()) {
      std::uint64_t count = 0;
      const auto attempt = [&] {
        count = messages.size() - sent;
        return segment().try_send(count, [&](std::uint64_t number, std::uint64_t some) {
          copy_slots(number, some, [&](std::byte* slot, std::uint64_t from, std::uint64_t bytes) {
            std::memcpy(slot, messages.data() + sent + from, bytes);
          });
        });
      };
      if (auto more = persist(wait, Waiting::For::slot, attempt(), attempt); !more) {
        if (sent == 0) return tl::make_unexpected(std::move(more.error()));
        break;
      }
      sent += count;
    }
    std::uint64_t bytes = 0;
    for (const T& message : messages.first(sent)) bytes += Counted<T>::bytes(message);
    row_.add(sent, bytes, sent);
    return sent;
  }

  Expected<std::size_t> receive_batch(std::span<T> into, const Wait& wait) {
    std::uint64_t count = 0;
    if (into.empty()) return 0;
    const auto attempt = [&] {
      count = std::min<std::uint64_t>(into.size(), channel_layout::kMostInHand);
      return segment().try_receive(count, [&](std::uint64_t number, std::uint64_t some) {
        copy_slots(number, some, [&](std::byte* slot, std::uint64_t to, std::uint64_t bytes) {
          std::memcpy(static_cast<void*>(into.data() + to), slot, bytes);
        });
        return true;
      });
    };
    if (auto received = persist(wait, Waiting::For::message, try_spinning(wait, attempt), attempt);
        !received) {
      return tl::make_unexpected(std::move(received.error()));
    }
    return count;
  }

 private:
  // Calls `copy` with a slot, the message's index in the batch, and bytes, for one or more at once.
  template <class Copy>
  void copy_slots(std::uint64_t number, std::uint64_t count, Copy&& copy) {
    if constexpr (sizeof(T) % 8 == 0) {
      const std::uint64_t to_end = segment().plan().mask + 1 - (number & segment().plan().mask);
      const std::uint64_t before = std::min(count, to_end);
      copy(segment().slot(number), 0, before * sizeof(T));
      if (before < count)
        copy(segment().slot(number + before), before, (count - before) * sizeof(T));
    } else {
      for (std::uint64_t i = 0; i < count; ++i) copy(segment().slot(number + i), i, sizeof(T));
    }
  }

  TransferRow row_;
};

class ByteChannel : public ChannelCore {
 public:
  explicit ByteChannel(std::shared_ptr<ChannelSegment> segment);

  template <class T = Bytes>
  static MessageType message_type() {
    return {hash_type(typeid(T).name(), 0, 0), type_name<T>(), sizeof(channel_layout::ByteSlot),
            true};
  }

  Expected<Bytes> buffer(std::size_t size, const Wait& wait);

  // `row`: what was encoded; null: bytes as such.
  Expected<void> send(std::span<const std::byte> bytes, const Wait& wait,
                      const TransferRow* row = nullptr);
  Expected<void> send(Bytes&& bytes, const Wait& wait);
  Expected<Bytes> receive(const Wait& wait);

  static void give_back(Bytes& bytes) noexcept;
  // Dropping them does not mean that the receiver is done with the message.
  static void keep_in_hand(Bytes& bytes) noexcept { bytes.hand_ = 0; }

 protected:
  Expected<void> send_encoded(const std::function<void(Encoder&)>& encode, const Wait& wait,
                              const TransferRow& row);
  tl::unexpected<Error> decode_error(const std::exception& failure) const;

 private:
  struct Outgoing;
  Expected<void> send_slot(const Outgoing& message, const Wait& wait);
  void write_slot(std::uint64_t number, const Outgoing& message);
  bool read_slot(std::uint64_t number, Bytes& into, int& refused);

  TransferRow copied_;
  TransferRow moved_;
};

// Of messages that are encoded.
template <class T>
class ObjectChannel : public ByteChannel {
 public:
  explicit ObjectChannel(std::shared_ptr<ChannelSegment> segment)
      : ByteChannel(std::move(segment)),
        row_(TransferCounter("channel", options().name).row(type_name<T>(), TransferKind::value)) {}

  static MessageType message_type() { return ByteChannel::message_type<T>(); }

  Expected<void> send(const T& object, const Wait& wait) {
    return send_encoded([&](Encoder& to) { to.put(object); }, wait, row_);
  }
  Expected<T> receive(const Wait& wait) {
    return ByteChannel::receive(wait).and_then([&](Bytes&& bytes) -> Expected<T> {
      keep_in_hand(bytes);
      try {
        return Decoder(bytes.span()).take_all<T>();
      } catch (const std::exception& failure) {
        return decode_error(failure);
      }
    });
  }

 private:
  TransferRow row_;
};

}  // namespace cowshed::internal
