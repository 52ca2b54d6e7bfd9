#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <typeinfo>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/share/channel/commit.h>
#include <cowshed/share/channel/options.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/channel/waiting.h>
#include <cowshed/share/ref.h>

// A channel of trivially copyable values: each message is one memcpy into a slot and one out of it.
// Not for users.
namespace cowshed::internal {

// How transfer_report() counts a message of type T: a Ref counts the object that it refers to.
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

template <class T>
class ValueChannel {
 public:
  explicit ValueChannel(std::shared_ptr<ChannelSegment> segment)
      : segment_(std::move(segment)),
        row_(segment_->row(type_name<typename Counted<T>::Type>(), Counted<T>::kKind)) {}

  static MessageType message_type() {
    // The mangled name is the same in every program.
    return {hash_type(typeid(T).name(), sizeof(T), alignof(T)), type_name<T>(),
            channel_layout::round_up(sizeof(T), 8), false};
  }
  ChannelSegment& segment() const { return *segment_; }

  Expected<void> send(const T& message, const Wait& wait) {
    std::uint64_t count = 1;
    const auto attempt = [&] {
      return segment().try_send(count, [&](std::uint64_t number, std::uint64_t) {
        std::memcpy(segment().slot(number), &message, sizeof(T));
      });
    };
    if (const Attempt first = attempt(); first != Attempt::done) [[unlikely]] {
      if (auto sent = retry(segment(), wait, Waiting::For::slot, first, attempt); !sent)
        return sent;
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
    if (const Attempt first = try_spinning(segment(), wait, attempt); first != Attempt::done)
        [[unlikely]] {
      if (auto received = retry(segment(), wait, Waiting::For::message, first, attempt); !received)
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
      if (auto more = retry(segment(), wait, Waiting::For::slot, attempt(), attempt); !more) {
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
    const Attempt first = try_spinning(segment(), wait, attempt);
    if (auto received = retry(segment(), wait, Waiting::For::message, first, attempt); !received)
      return tl::make_unexpected(std::move(received.error()));
    return count;
  }

 private:
  // Calls `copy` with a slot, an index in the batch and a number of bytes, for each run of messages
  // that lies in one chunk of the ring.
  template <class Copy>
  void copy_slots(std::uint64_t number, std::uint64_t count, Copy&& copy) {
    if constexpr (sizeof(T) % 8 == 0) {
      const std::uint64_t mask = segment().plan().chunk_mask;
      for (std::uint64_t done = 0; done < count;) {
        const std::uint64_t to_end = mask + 1 - ((number + done) & mask);
        const std::uint64_t some = std::min(count - done, to_end);
        copy(segment().slot(number + done), done, some * sizeof(T));
        done += some;
      }
    } else {
      for (std::uint64_t i = 0; i < count; ++i) copy(segment().slot(number + i), i, sizeof(T));
    }
  }

  std::shared_ptr<ChannelSegment> segment_;
  TransferRow row_;
};

}  // namespace cowshed::internal
