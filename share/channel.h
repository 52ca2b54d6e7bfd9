#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/share/channel/byte_channel.h>
#include <cowshed/share/channel/bytes.h>
#include <cowshed/share/channel/loan.h>
#include <cowshed/share/channel/options.h>
#include <cowshed/share/channel/value_channel.h>

// A bounded queue of messages between processes, in shared memory.
//
//   auto jobs = cowshed::Channel<Query>::create({.name = "jobs"}).value();
//   if (fork() == 0) {
//     while (auto query = jobs.receive()) { ... }  // until the channel is closed and empty
//     _exit(0);
//   }
//   jobs.send(query);
//   jobs.close();                                  // receivers see it after the messages
//
// Guarantees, for every type of message:
// * A message can be received as soon as `send` returns.  It needs no thread.  It lies in shared
//   memory and outlives its sender.  A sender's exit never waits for a receiver.
// * Messages are received in the order in which they were sent.
// * If SIGKILL ends a process at any instruction, the others keep working.  A message is received
//   exactly once, unless its receiver dies while it holds the message; stats() then names it.  A
//   message that was being sent is dropped as a whole.  The dead process's memory is freed.
//   Waiting peers notice the death within some 5 ms after its address space is gone, and within
//   some 64 ms if many threads wait.
// * A process that is stopped (SIGSTOP, ptrace) inside a call is waited for; see peer_stopped.
//   After SIGCONT no message is lost or doubled.
// * Lack of memory is an error and never a later SIGBUS.  A new channel takes 104 KiB.  `send` and
//   `loan` take memory for slots and payload when it is first needed.  It counts as shared memory
//   of the cgroup that took it.  Payload of 2 MiB or more lies in huge pages if the kernel has any
//   (MADV_COLLAPSE, Linux 6.1).
//
// Moved-from: only assign to it or destroy it.
//
// Threads: all members are thread-safe.  Copies of a handle mean the same channel.  The last copy
// closes this process's descriptors, but not the channel.
//
// Fork: a child may use its parent's handles and takes part as a process of its own.  Do not fork
// in a signal handler that interrupted a call.
//
// Errors of all calls:
//   closed             send: the channel is closed.  receive: it is closed and empty.
//   would_block        try forms: the channel is full, empty or out of `memory`.
//   timed_out          timed forms: the same at the deadline.
//   peer_stopped       instead of these two, if a stopped process holds a lock.  The blocking forms
//                      wait for it instead.
//   interrupted        blocking forms: the stop_token was asked to stop.  This takes some 5 ms; if
//                      more than 5 threads wait, some 1 ms for each, up to 64 ms.
//   message_too_large  the message is larger than the channel's `memory`.
//   out_of_memory      the kernel or the memory cgroup has no more; or all 1,025 processes, 1,025
//                      receiving threads or all blocks are in use.
//   bad_channel        the shared memory is damaged.
//   unsupported        membarrier(2) is refused, by Linux before 4.16 or by a sandbox.
//   system_call        `system_errno` says why.
// After an error of `send` nothing was sent, and the caller still has the message.
namespace cowshed {

// T is one of:
// * a trivially copyable type, such as a Ref<U>: copied into a slot;
// * Bytes: up to 192 bytes lie in a slot, more in blocks of the channel's memory;
// * a type with a Codec (codec.h): encoded, and then sent as bytes are.
template <class T>
class Channel {
  static constexpr bool kOfBytes = std::is_same_v<T, Bytes>;
  static constexpr bool kOfValues = std::is_trivially_copyable_v<T>;
  static_assert(kOfBytes || kOfValues || Codable<T>,
                "specialise cowshed::Codec<T>, or send a Ref<T>, or Bytes");
  using Sent = std::conditional_t<kOfBytes, std::span<const std::byte>, const T&>;
  using Core = std::conditional_t<
      kOfBytes, internal::ByteChannel,
      std::conditional_t<kOfValues, internal::ValueChannel<T>, internal::ObjectChannel<T>>>;

 public:
  // Errors: invalid_argument, out_of_memory, system_call.
  static Expected<Channel> create(const ChannelOptions& options = {}) {
    return internal::create_segment(options, Core::message_type()).map(to_channel);
  }

  // Opens a channel by the descriptors() of another process.  On success the channel owns the
  // descriptors and makes them close-on-exec.  Errors: foreign_descriptor (not a channel's),
  // bad_channel (damaged, or of another version), wrong_type, system_call (EBADF).
  static Expected<Channel> from_descriptors(const ChannelDescriptors& descriptors) {
    return internal::open_segment(descriptors, Core::message_type()).map(to_channel);
  }

  // Sends a copy.  Encoding an object may throw std::bad_alloc; another exception of its Codec is
  // an invalid_argument error.
  Expected<void> send(Sent message, const Wait& wait = {}) { return core_.send(message, wait); }
  Expected<void> try_send(Sent message) { return send(message, Wait::never()); }
  // Sends a received message on.  If it came from this channel, it is not copied, and is unmapped
  // from this process.  `bytes` is empty afterwards, or unchanged after an error.
  Expected<void> send(T&& bytes, const Wait& wait = {})
    requires(kOfBytes)
  {
    return core_.send(std::move(bytes), wait);
  }
  Expected<void> try_send(T&& bytes)
    requires(kOfBytes)
  {
    return send(std::move(bytes), Wait::never());
  }

  // Lends an array of `count` elements in the channel's memory, to write in place and commit().
  // Waits and fails as `send` does.  U must be trivially copyable.
  template <class U = std::byte>
  Expected<Loan<U>> loan(std::size_t count = 1, const Wait& wait = {})
    requires(kOfBytes)
  {
    constexpr std::size_t kMost = ~std::size_t{0} / sizeof(U);
    return core_.loan(count > kMost ? ~std::size_t{0} : count * sizeof(U), wait)
        .map([this](Bytes&& bytes) { return Loan<U>(core_, std::move(bytes)); });
  }
  template <class U = std::byte>
  Expected<Loan<U>> try_loan(std::size_t count = 1)
    requires(kOfBytes)
  {
    return loan<U>(count, Wait::never());
  }

  // The calling thread holds the message until it receives again; see LostMessages.  If an object
  // cannot be decoded, the error is bad_encoding and the message is gone, also if decoding throws
  // std::bad_alloc.
  Expected<T> receive(const Wait& wait = {}) { return core_.receive(wait); }
  Expected<T> try_receive() { return receive(Wait::never()); }

  // Sends all messages, in as many runs as there is room for; other senders' messages may come
  // between the runs.  Returns the number sent, which is smaller if an error came after the first.
  Expected<std::size_t> send_batch(std::span<const T> messages, const Wait& wait = {})
    requires(kOfValues)
  {
    return core_.send_batch(messages, wait);
  }
  Expected<std::size_t> try_send_batch(std::span<const T> messages) {
    return send_batch(messages, Wait::never());
  }
  // Waits for one message and receives all that are there and fit.  Returns the number.  The thread
  // holds all of them until it receives again.
  Expected<std::size_t> receive_batch(std::span<T> into, const Wait& wait = {})
    requires(kOfValues)
  {
    return core_.receive_batch(into, wait);
  }
  Expected<std::size_t> try_receive_batch(std::span<T> into) {
    return receive_batch(into, Wait::never());
  }

  // Closes the channel for all processes and wakes all waiting calls.  Messages that were sent can
  // still be received.  Never blocks.  Closing again does nothing.
  void close() { core_.segment().close(); }
  bool closed() const { return core_.segment().closed(); }

  // Returns a descriptor for poll, select or epoll.  It is readable if the channel is closed or may
  // have a message.  Then call try_receive() until it fails with would_block, which makes the
  // descriptor unreadable.  Level-triggered polling works, and edge-triggered if each process has
  // its own epoll.  If a process dies, the survivors are notified.
  //
  // Never read, write or close the descriptor.  After the first call, in any process, a send to an
  // unreadable descriptor costs one more system call.
  Expected<int> descriptor() { return core_.segment().poll_descriptor(); }

  // The descriptors to pass to a process that is not forked from this one.  The channel owns them;
  // do not close them.  They are close-on-exec.
  ChannelDescriptors descriptors() const { return core_.segment().descriptors(); }

  // Also checks for dead processes, so that the messages that they lost are counted.
  ChannelStats stats() const { return core_.segment().stats(); }

  const std::string& name() const { return options().name; }
  const ChannelOptions& options() const { return core_.segment().options(); }

  // For sources that build on this one.
  Core& internals() { return core_; }

 private:
  explicit Channel(std::shared_ptr<internal::ChannelSegment> segment) : core_(std::move(segment)) {}
  static Channel to_channel(std::shared_ptr<internal::ChannelSegment> segment) {
    return Channel(std::move(segment));
  }

  Core core_;
};

}  // namespace cowshed
