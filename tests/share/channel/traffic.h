#pragma once

#include <cowshed/tests/share/share.h>

// Messages that say who they are and whether they are whole, in each of the ways to send them.
namespace cowshed::test {

// What is read from a message that is not whole.
inline constexpr std::uint64_t kBroken = ~std::uint64_t{0};

inline std::byte pattern(std::uint64_t id, std::size_t at) {
  return static_cast<std::byte>((id * 0x9e3779b97f4a7c15U) >> (8 * (at % 8))) ^
         static_cast<std::byte>(at / 8);
}

struct Values {
  struct Message {
    std::uint64_t id;
    std::array<std::byte, 56> bytes;
  };
  using Of = Channel<Message>;
  static Message make(std::uint64_t id) {
    Message message{id, {}};
    for (std::size_t i = 0; i < message.bytes.size(); ++i) message.bytes[i] = pattern(id, i);
    return message;
  }
  // Made before the call that a test steps through.
  using Prepared = Message;
  static Prepared prepare(std::uint64_t id) { return make(id); }
  static Expected<void> send(Of& channel, const Prepared& message) { return channel.send(message); }
  static Expected<void> try_send(Of& channel, std::uint64_t id) {
    return channel.try_send(make(id));
  }
  static std::uint64_t id_of(const Message& message) {
    const Message whole = make(message.id);
    return std::memcmp(&whole, &message, sizeof(message)) == 0 ? message.id : kBroken;
  }
};

template <std::size_t size>
struct CopiedBytes {
  using Of = Channel<Bytes>;
  using Prepared = std::vector<std::byte>;

  static Prepared prepare(std::uint64_t id) {
    Prepared bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = pattern(id, i);
    std::memcpy(bytes.data(), &id, sizeof(id));
    return bytes;
  }
  static Expected<void> send(Of& channel, const Prepared& message) { return channel.send(message); }
  static Expected<void> try_send(Of& channel, std::uint64_t id) {
    return channel.try_send(prepare(id));
  }
  static std::uint64_t id_of(const Bytes& message) {
    std::uint64_t id = 0;
    if (message.size() != size) return kBroken;
    std::memcpy(&id, message.data(), sizeof(id));
    return std::memcmp(prepare(id).data(), message.data(), size) == 0 ? id : kBroken;
  }
};

// A loan that is written to at both ends and committed.
template <std::size_t kSize>
struct MovedBuffers {
  using Of = Channel<Bytes>;
  using Prepared = std::uint64_t;
  static Prepared prepare(std::uint64_t id) { return id; }
  static void fill(Loan<std::byte>& buffer, std::uint64_t id) {
    std::memcpy(buffer.data(), &id, sizeof(id));
    id = ~id;
    std::memcpy(buffer.data() + kSize - sizeof(id), &id, sizeof(id));
  }
  static Expected<void> send(Of& channel, std::uint64_t id) {
    auto buffer = channel.loan(kSize);
    if (!buffer) return tl::make_unexpected(buffer.error());
    fill(*buffer, id);
    return std::move(*buffer).commit();
  }
  static Expected<void> try_send(Of& channel, std::uint64_t id) {
    auto buffer = channel.try_loan(kSize);
    if (!buffer) return tl::make_unexpected(buffer.error());
    fill(*buffer, id);
    return std::move(*buffer).try_commit();
  }
  static std::uint64_t id_of(const Bytes& message) {
    std::uint64_t id = 0;
    std::uint64_t last = 0;
    if (message.size() != kSize) return kBroken;
    std::memcpy(&id, message.data(), sizeof(id));
    std::memcpy(&last, message.data() + kSize - sizeof(last), sizeof(last));
    return last == ~id ? id : kBroken;
  }
};

}  // namespace cowshed::test
