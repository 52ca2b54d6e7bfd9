#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace cowshed {

namespace internal {
class ByteChannel;
class ChannelSegment;
}  // namespace internal

// A message of Channel<Bytes>: bytes in the channel's memory, mapped in place, or, when few, in the
// object itself.  It owns them and may write to them; dropped, the memory goes back to the channel.
// It may outlive its channel's handles.
//
// Not thread-safe, but may cross threads.  In a process forked from its owner's a copy can be read
// as long as the owner has it, and dropping it there does nothing.
class Bytes {
 public:
  Bytes() noexcept {}  // NOLINT(modernize-use-equals-default): leaves small_ alone
  Bytes(Bytes&& other) noexcept { take(other); }
  Bytes& operator=(Bytes&& other) noexcept {
    if (this != &other) {
      drop();
      take(other);
    }
    return *this;
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  ~Bytes() { drop(); }

  // Of a block in the channel's memory a multiple of 4096; else of 8.
  std::byte* data() noexcept { return block_ != nullptr ? block_ : small_.data(); }
  const std::byte* data() const noexcept { return block_ != nullptr ? block_ : small_.data(); }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::span<std::byte> span() noexcept { return {data(), size_}; }
  std::span<const std::byte> span() const noexcept { return {data(), size_}; }

  // Cuts off what is beyond `size`; more than size() changes nothing.
  void shrink(std::size_t size) noexcept { size_ = size < size_ ? size : size_; }

  // Whether they lie in the channel's memory rather than in this object.
  bool in_channel() const noexcept { return block_ != nullptr; }

  static constexpr std::size_t kSmall = 192;

 private:
  friend class internal::ByteChannel;

  void take(Bytes& other) noexcept;
  void drop() noexcept {
    if (block_ != nullptr) give_back();
  }
  void give_back() noexcept;

  std::byte* block_ = nullptr;
  std::size_t size_ = 0;
  std::uint64_t word_ = 0;      // the block's, as this process owns it
  std::uint32_t index_ = 0;     // the block's
  std::uint32_t hand_ = 0;      // 1 + the hand that took it; 0: none
  std::uint64_t sequence_ = 0;  // its number, where hand_ is not 0
  std::shared_ptr<internal::ChannelSegment> segment_;
  alignas(8) std::array<std::byte, kSmall> small_;
};

}  // namespace cowshed
