#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include <cowshed/base/expected_range.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/serialize.h>

// A channel of any objects that cereal knows, see serialize.h:
//
//   auto jobs = cowshed::ObjectChannel<Config>::create({.name = "jobs"}).value();
//   jobs.send(config);                                    // encodes it
//   Expected<Config> config = jobs.receive();             // another process: one of its own
//
// What an object of many consists of is in transfer_report().  This header is optional as
// serialize.h is, and needs the CMake target cowshed::serialize.
namespace cowshed {

// As Channel<Bytes> in all else: see channel.h, also for what the calls wait for, and their errors.
// `send` has those of encode() besides, and throws std::bad_alloc; `receive` those of decode(), and
// then the message is gone.  An object is in its receiver's hand until that thread receives again.
template <std::default_initializable T>
class ObjectChannel : public internal::ChannelHandle<Bytes> {
  using Handle = internal::ChannelHandle<Bytes>;
  using Clock = std::chrono::steady_clock;
  using Wait = internal::Wait;

 public:
  static Expected<ObjectChannel> create(const ChannelOptions& options = {}) {
    return internal::create_segment(options, message_type()).map(to_channel);
  }
  static Expected<ObjectChannel> from_descriptors(const ChannelDescriptors& descriptors) {
    return internal::open_segment(descriptors, message_type()).map(to_channel);
  }

  Expected<void> send(const T& object, std::stop_token stop = {}) {
    return send_encoded(object, Wait::until_stopped(std::move(stop)));
  }
  Expected<void> try_send(const T& object) { return send_encoded(object, Wait::never()); }
  Expected<void> send_until(const T& object, Clock::time_point deadline) {
    return send_encoded(object, Wait::until(deadline));
  }
  Expected<void> send_for(const T& object, Clock::duration time) {
    return send_until(object, Wait::after(time));
  }

  ExpectedValue<T> receive(std::stop_token stop = {}) {
    return receive_decoded(Wait::until_stopped(std::move(stop)));
  }
  ExpectedValue<T> try_receive() { return receive_decoded(Wait::never()); }
  ExpectedValue<T> receive_until(Clock::time_point deadline) {
    return receive_decoded(Wait::until(deadline));
  }
  ExpectedValue<T> receive_for(Clock::duration time) { return receive_until(Wait::after(time)); }

 private:
  explicit ObjectChannel(std::shared_ptr<internal::ChannelSegment> segment)
      : Handle(std::move(segment)),
        row_(internal::TransferCounter("channel", this->name())
                 .row(type_name<T>(), TransferKind::value)) {}

  static internal::MessageType message_type() {
    auto type = internal::message_type<Bytes>();
    type.id = internal::encoding_id(typeid(T));
    type.name = type_name<T>();
    return type;
  }
  static ObjectChannel to_channel(std::shared_ptr<internal::ChannelSegment> segment) {
    return ObjectChannel(std::move(segment));
  }

  Expected<void> send_encoded(const T& object, const Wait& wait) {
    std::optional<internal::TypeTree> tree;
    if (row_.wants_paths()) {
      tree.emplace();
    }
    std::vector<std::byte> bytes;
    auto sent = internal::encode_into(bytes, object, tree ? &*tree : nullptr).and_then([&] {
      return this->core().send(bytes, wait, internal::encoding_id(typeid(T)), &row_);
    });
    if (sent && tree) {
      row_.add_paths(tree->paths());
    }
    return sent;
  }

  ExpectedValue<T> receive_decoded(const Wait& wait) {
    return this->core().receive(wait).and_then([](Bytes&& bytes) -> Expected<T> {
      internal::ByteChannel::keep_in_hand(bytes);
      return decode<T>(bytes.span());
    });
  }

  internal::TransferRow row_;
};

}  // namespace cowshed
