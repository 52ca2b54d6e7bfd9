#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>

#include <cowshed/base/error.h>
#include <cowshed/base/type_id.h>

namespace cowshed {

namespace internal {
class ByteChannel;
class ChannelSegment;
}  // namespace internal

// A received message of Channel<Bytes>.  Up to 192 bytes lie in the object itself.  More bytes lie
// in the channel's memory and are mapped in place.
//
// The object owns its bytes and may write to them.  Its destructor returns the memory to the
// channel.  It may outlive the channel's handles.
//
// Not thread-safe, but may be passed to another thread.  A forked child can read the bytes while
// its parent has them; dropping them in the child does nothing.
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

  // Aligned to kAlignment.
  std::byte* data() noexcept { return block_ != nullptr ? block_ : small_.data(); }
  const std::byte* data() const noexcept { return block_ != nullptr ? block_ : small_.data(); }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::span<std::byte> span() noexcept { return {data(), size_}; }
  std::span<const std::byte> span() const noexcept { return {data(), size_}; }

  // The same bytes as elements of type T.  Does not copy.  Error: wrong_type, if size() is not a
  // multiple of sizeof(T).
  template <class T>
  Expected<std::span<const T>> as() const {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    if (size_ % sizeof(T) != 0) {
      return make_error(ErrorCode::wrong_type, "a message of " + std::to_string(size_) +
                                                   " bytes is no array of " +
                                                   std::string(type_name<T>()) + " (" +
                                                   std::to_string(sizeof(T)) + " bytes each)");
    }
    return std::span(reinterpret_cast<const T*>(data()), size_ / sizeof(T));
  }

  // Keeps the first `size` bytes.  Does nothing if there are fewer.
  void shrink(std::size_t size) noexcept { size_ = size < size_ ? size : size_; }

  // Whether the bytes lie in the channel's memory rather than in this object.
  bool in_channel() const noexcept { return block_ != nullptr; }

  static constexpr std::size_t kSmall = 192;
  static constexpr std::size_t kAlignment = 64;

 private:
  friend class internal::ByteChannel;

  void take(Bytes& other) noexcept;
  void drop() noexcept {
    if (block_ != nullptr) give_back();
  }
  void give_back() noexcept;

  std::byte* block_ = nullptr;
  std::size_t size_ = 0;
  std::uint64_t word_ = 0;      // the block's word, which says that this process owns the block
  std::uint32_t index_ = 0;     // the block's index
  std::uint32_t hand_ = 0;      // 1 + the index of the receiving thread's hand; 0: none
  std::uint64_t sequence_ = 0;  // the message's number, if hand_ is not 0
  std::shared_ptr<internal::ChannelSegment> segment_;
  alignas(kAlignment) std::array<std::byte, kSmall> small_;
};

}  // namespace cowshed
