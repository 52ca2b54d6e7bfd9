#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <typeinfo>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/share/channel/bytes.h>
#include <cowshed/share/channel/options.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/codec.h>

// Channels of bytes, and of objects that a Codec encodes as bytes.  Not for users.
//
// Up to 192 bytes travel in the slot.  A longer message lies in a block, and the slot names it.
namespace cowshed::internal {

class ByteChannel {
 public:
  explicit ByteChannel(std::shared_ptr<ChannelSegment> segment);

  template <class T = Bytes>
  static MessageType message_type() {
    return {hash_type(typeid(T).name(), 0, 0), type_name<T>(), sizeof(channel_layout::ByteSlot),
            true};
  }
  ChannelSegment& segment() const { return *segment_; }
  bool is_open() const { return segment_ != nullptr; }
  void leave() { segment_.reset(); }

  // Memory for a message of this process.
  Expected<Bytes> loan(std::size_t size, const Wait& wait);
  // Sends a copy.  `row` counts encoded objects; null: plain bytes.
  Expected<void> send(std::span<const std::byte> bytes, const Wait& wait,
                      const TransferRow* row = nullptr);
  // Hands the block over, or copies if this process does not own it.  `row` counts an object that
  // was encoded into it; null: moved bytes.
  Expected<void> send(Bytes&& bytes, const Wait& wait, const TransferRow* row = nullptr);
  Expected<Bytes> receive(const Wait& wait);

  static void give_back(Bytes& bytes) noexcept;
  // The thread holds the message until its next receive, even if the bytes are dropped earlier.
  static void keep_in_hand(Bytes& bytes) noexcept { bytes.hand_ = 0; }

 protected:
  Expected<void> send_encoded(const std::function<void(Encoder&)>& encode, const Wait& wait,
                              const TransferRow& row);
  tl::unexpected<Error> decode_error() const;  // of the exception that is being handled

 private:
  struct Outgoing;
  Expected<void> send_slot(const Outgoing& message, const Wait& wait);
  void write_slot(std::uint64_t number, const Outgoing& message);
  bool read_slot(std::uint64_t number, Bytes& into, int& map_errno);

  std::shared_ptr<ChannelSegment> segment_;
  TransferRow copied_;
  TransferRow moved_;
};

template <class T>
class ObjectChannel : public ByteChannel {
 public:
  explicit ObjectChannel(std::shared_ptr<ChannelSegment> segment)
      : ByteChannel(std::move(segment)),
        row_(this->segment().row(type_name<T>(), TransferKind::value)) {}

  static MessageType message_type() { return ByteChannel::message_type<T>(); }

  Expected<void> send(const T& object, const Wait& wait) {
    return send_encoded([&](Encoder& to) { to.put(object); }, wait, row_);
  }
  Expected<T> receive(const Wait& wait) {
    return ByteChannel::receive(wait).and_then([&](Bytes&& bytes) -> Expected<T> {
      keep_in_hand(bytes);
      try {
        return Decoder(bytes.span()).take_all<T>();
      } catch (const std::bad_alloc&) {
        throw;
      } catch (...) {
        return decode_error();
      }
    });
  }

 private:
  TransferRow row_;
};

}  // namespace cowshed::internal
