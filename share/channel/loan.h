#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/share/channel/byte_channel.h>
#include <cowshed/share/channel/bytes.h>
#include <cowshed/share/channel/options.h>

namespace cowshed {

// An array of T in a channel's memory, to write in place and then send without a copy.
//
//   auto frame = channel.loan<Pixel>(1920 * 1080).value();
//   render(frame.span());
//   std::move(frame).commit();                         // in the receiver:
//                                                      // channel.receive()->as<Pixel>()
//
// Destroying a loan before commit() sends nothing and returns the memory to the channel.  A loan
// may outlive the channel's handles.
//
// Not thread-safe, but may be passed to another thread.  In a forked child, commit() of the
// parent's loan sends a copy, and dropping it does nothing.
template <class T>
class Loan {
  static_assert(std::is_trivially_copyable_v<T>, "a loan is sent as bytes");
  static_assert(alignof(T) <= Bytes::kAlignment);

 public:
  // The elements, unspecified until they are written: no constructor runs.
  T* data() noexcept { return reinterpret_cast<T*>(bytes_.data()); }
  std::size_t size() const noexcept { return bytes_.size() / sizeof(T); }
  std::span<T> span() noexcept { return {data(), size()}; }
  T& operator[](std::size_t index) noexcept { return span()[index]; }
  T& operator*() noexcept { return *data(); }
  T* operator->() noexcept { return data(); }

  // Keeps the first `count` elements.  Does nothing if there are fewer.
  void shrink(std::size_t count) noexcept {
    if (count < size()) bytes_.shrink(count * sizeof(T));
  }

  // Sends the array as one message and unmaps it from this process.  Errors: those of `send`, after
  // which the loan is unchanged and can be committed again; invalid_argument, if the loan was
  // committed or moved from.
  Expected<void> commit(const Wait& wait = {}) && {
    if (!channel_.is_open()) {
      return make_error(ErrorCode::invalid_argument,
                        "this loan was committed or moved from; take another");
    }
    auto sent = channel_.send(std::move(bytes_), wait);
    if (sent) channel_.leave();
    return sent;
  }
  Expected<void> try_commit() && { return std::move(*this).commit(Wait::never()); }

 private:
  template <class Message>
  friend class Channel;
  Loan(const internal::ByteChannel& channel, Bytes&& bytes)
      : channel_(channel), bytes_(std::move(bytes)) {}

  internal::ByteChannel channel_;
  Bytes bytes_;
};

}  // namespace cowshed
