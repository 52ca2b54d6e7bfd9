#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/expected_range.h>
#include <cowshed/share/bytes.h>
#include <cowshed/share/channel_core.h>
#include <cowshed/share/channel_options.h>
#include <cowshed/share/channel_stats.h>

// A bounded queue of messages between processes, in shared memory.
//
//   auto jobs = cowshed::Channel<Query>::create({.name = "jobs"}).value();
//   if (fork() == 0) {
//     while (auto query = jobs.receive()) { ... }   // until jobs is closed and empty
//     _exit(0);
//   }
//   jobs.send(query);
//   jobs.close();                                   // seen by every receiver after what was sent
//
// docs/channel.md has the protocol.  What holds, for every form:
// * When `send` has returned, try_receive in any process finds the message (or another receiver had
//   it).  Messages arrive in the order in which they were sent, those of each sender above all.
// * No thread, no feeder: what was sent lies in memory and outlives its sender, whose exit never
//   waits for a reader.
// * SIGKILL of any process at any instruction leaves the others working.  A message is received at
//   most once, and exactly once unless its receiver was killed with it in hand: stats() names it.
//   What was being sent is dropped whole; what the dead process held is freed.  Those who wait for
//   it notice within some 5 ms, once the kernel has taken down its address space.
// * A process that is stopped (SIGSTOP, ptrace) in the midst of a call is waited for, as it may go
//   on; see peer_stopped.  After SIGCONT nothing is lost or doubled.
// * The ring's memory is taken from the kernel by `create`, a payload's by `send` and `buffer`, so
//   that shortage is their error and not a signal later.  It counts as shared memory, of the memory
//   cgroup that took it, and can be swapped.  A payload of 2 MiB or more lies in pages of 2 MiB
//   where the kernel has them (MADV_COLLAPSE, Linux 6.1), whatever the settings of huge pages.
//
// Handles are values: copies mean the same channel, and the last one that goes closes this
// process's descriptors (not the channel).  All members are thread-safe and may be used in forked
// children, who take part as processes of their own from their first call on.  Do not fork in a
// signal handler that interrupted a call.
//
// Errors that the forms share:
//   closed             send: the channel is closed.  receive: it is closed and empty.
//   would_block        the try forms: full (or out of `memory`), or empty.
//   timed_out          the timed forms: still so at the deadline.
//   peer_stopped       instead of the two above, while a stopped process is in the midst of a call
//                      and what it holds is needed; the blocking forms wait for it.
//   interrupted        the blocking forms: their stop_token was asked to stop (seen within 5 ms).
//   message_too_large  more than the channel's `memory`: it could never be sent.
//   out_of_memory      the kernel or the memory cgroup has not as much; also: every party, hand
//                      or block is taken (1,024 processes and 1,024 receiving threads besides the
//                      channel's creator and one thread of it).
//   bad_channel        the segment is damaged.
//   unsupported        membarrier(2) is refused: Linux before 4.16, or a sandbox.
//   system_call        see system_errno.
// An error of send leaves nothing behind, and the message with the caller.
namespace cowshed {

namespace internal {

template <class T>
class ChannelHandle {
 public:
  // No more can be sent, from now on in every process; what was sent can still be received, then
  // `receive` fails with `closed`.  Wakes all who wait.  Again: nothing.  Never blocks.
  void close() { core().close(); }
  bool closed() const { return core().closed(); }

  // A descriptor for poll, select or epoll, to read: readable when there may be a message, or the
  // channel is closed.  Then receive by the try form until that fails with would_block, which makes
  // it unreadable; any process may take the message first.  Level-triggered, or edge-triggered in
  // an epoll of each process's own.  Whoever is killed meanwhile, those who are left are told.
  // Never read from or write to it.  Owned by the channel.  From the first such call on, in any
  // process, a send costs one more system call when the descriptor had become unreadable.
  Expected<int> descriptor() { return core().descriptor(); }

  // To be inherited by, or sent to, a process that is not forked from this one; owned by the
  // channel, close-on-exec.  Not to be closed: a process maps the blocks of a size when it first
  // touches one.
  ChannelDescriptors descriptors() const { return core().descriptors(); }

  // Looks for processes that died, too, so that what they lost is counted.
  ChannelStats stats() const { return core().stats(); }

  const std::string& name() const { return core().options().name; }
  const ChannelOptions& options() const { return core().options(); }

 protected:
  using Core = std::conditional_t<std::is_same_v<T, Bytes>, ByteChannel, ValueChannel<T>>;

  explicit ChannelHandle(std::shared_ptr<ChannelSegment> segment) : core_(std::move(segment)) {}
  Core& core() const { return core_; }

 private:
  mutable Core core_;
};

}  // namespace internal

// Messages of trivially copyable T, copied into the ring's slots; a Ref<U> among them.
template <class T>
class Channel : public internal::ChannelHandle<T> {
  static_assert(std::is_trivially_copyable_v<T>,
                "send a Ref<T>, or the bytes of what was serialised through a Channel<Bytes>");
  using Handle = internal::ChannelHandle<T>;
  using Clock = std::chrono::steady_clock;
  using Wait = internal::Wait;

 public:
  // Errors: invalid_argument, out_of_memory (the ring), system_call.
  static Expected<Channel> create(const ChannelOptions& options = {}) {
    return internal::create_segment(options, internal::message_type<T>()).map(to_channel);
  }

  // For descriptors() of another process.  Takes both over if it succeeds, and makes them
  // close-on-exec.  Errors: foreign_descriptor (not a channel's), bad_channel (damaged, of another
  // version), wrong_type, system_call (EBADF: no descriptor).
  static Expected<Channel> from_descriptors(const ChannelDescriptors& descriptors) {
    return internal::open_segment(descriptors, internal::message_type<T>()).map(to_channel);
  }

  Expected<void> send(const T& message, std::stop_token stop = {}) {
    return this->core().send(message, Wait::until_stopped(std::move(stop)));
  }
  Expected<void> try_send(const T& message) { return this->core().send(message, Wait::never()); }
  Expected<void> send_until(const T& message, Clock::time_point deadline) {
    return this->core().send(message, Wait::until(deadline));
  }
  Expected<void> send_for(const T& message, Clock::duration time) {
    return send_until(message, Wait::after(time));
  }

  ExpectedValue<T> receive(std::stop_token stop = {}) {
    return this->core().receive(Wait::until_stopped(std::move(stop)));
  }
  ExpectedValue<T> try_receive() { return this->core().receive(Wait::never()); }
  ExpectedValue<T> receive_until(Clock::time_point deadline) {
    return this->core().receive(Wait::until(deadline));
  }
  ExpectedValue<T> receive_for(Clock::duration time) { return receive_until(Wait::after(time)); }

  // Many at a time, for throughput.  Sent are all, in as many pieces as there is room for, others'
  // between them; returns how many, which is fewer than all when an error came after the first.
  Expected<std::size_t> send_batch(std::span<const T> messages, std::stop_token stop = {}) {
    return this->core().send_batch(messages, Wait::until_stopped(std::move(stop)));
  }
  Expected<std::size_t> try_send_batch(std::span<const T> messages) {
    return this->core().send_batch(messages, Wait::never());
  }
  // Waits for one, takes as many as there are and fit, in order; returns how many.  All of them are
  // in this thread's hand at once.
  Expected<std::size_t> receive_batch(std::span<T> into, std::stop_token stop = {}) {
    return this->core().receive_batch(into, Wait::until_stopped(std::move(stop)));
  }
  Expected<std::size_t> receive_batch_for(std::span<T> into, Clock::duration time) {
    return this->core().receive_batch(into, Wait::until(Wait::after(time)));
  }
  Expected<std::size_t> try_receive_batch(std::span<T> into) {
    return this->core().receive_batch(into, Wait::never());
  }

 private:
  using Handle::Handle;

  static Channel to_channel(std::shared_ptr<internal::ChannelSegment> segment) {
    return Channel(std::move(segment));
  }
};

// Messages of bytes, of any size, 0 included.  Up to 192 bytes lie in the ring's slots, more in
// blocks of the channel's memory.
template <>
class Channel<Bytes> : public internal::ChannelHandle<Bytes> {
  using Handle = internal::ChannelHandle<Bytes>;
  using Clock = std::chrono::steady_clock;
  using Wait = internal::Wait;

 public:
  static Expected<Channel> create(const ChannelOptions& options = {}) {
    return internal::create_segment(options, internal::message_type<Bytes>()).map(to_channel);
  }
  static Expected<Channel> from_descriptors(const ChannelDescriptors& descriptors) {
    return internal::open_segment(descriptors, internal::message_type<Bytes>()).map(to_channel);
  }

  // `size` bytes to write to and then send; of a block, all zero at first unless it was used
  // before.  Waits as `send` does when `memory` is used up, and has the same errors.
  ExpectedValue<Bytes> buffer(std::size_t size, std::stop_token stop = {}) {
    return this->core().buffer(size, Wait::until_stopped(std::move(stop)));
  }
  ExpectedValue<Bytes> try_buffer(std::size_t size) {
    return this->core().buffer(size, Wait::never());
  }
  ExpectedValue<Bytes> buffer_for(std::size_t size, Clock::duration time) {
    return this->core().buffer(size, Wait::until(Wait::after(time)));
  }

  // Copies.
  Expected<void> send(std::span<const std::byte> bytes, std::stop_token stop = {}) {
    return this->core().send(bytes, Wait::until_stopped(std::move(stop)));
  }
  Expected<void> try_send(std::span<const std::byte> bytes) {
    return this->core().send(bytes, Wait::never());
  }
  Expected<void> send_until(std::span<const std::byte> bytes, Clock::time_point deadline) {
    return this->core().send(bytes, Wait::until(deadline));
  }
  Expected<void> send_for(std::span<const std::byte> bytes, Clock::duration time) {
    return send_until(bytes, Wait::after(time));
  }

  // Moves: what buffer() or a receive of this channel gave is handed over where it lies, and is
  // unmapped from this process; it is empty afterwards.  After an error it is as before.  What
  // another channel gave is copied.
  Expected<void> send(Bytes&& bytes, std::stop_token stop = {}) {
    return this->core().send(std::move(bytes), Wait::until_stopped(std::move(stop)));
  }
  Expected<void> try_send(Bytes&& bytes) {
    return this->core().send(std::move(bytes), Wait::never());
  }
  Expected<void> send_until(Bytes&& bytes, Clock::time_point deadline) {
    return this->core().send(std::move(bytes), Wait::until(deadline));
  }
  Expected<void> send_for(Bytes&& bytes, Clock::duration time) {
    return send_until(std::move(bytes), Wait::after(time));
  }

  // However it was sent, nothing is copied but what is small.
  ExpectedValue<Bytes> receive(std::stop_token stop = {}) {
    return this->core().receive(Wait::until_stopped(std::move(stop)));
  }
  ExpectedValue<Bytes> try_receive() { return this->core().receive(Wait::never()); }
  ExpectedValue<Bytes> receive_until(Clock::time_point deadline) {
    return this->core().receive(Wait::until(deadline));
  }
  ExpectedValue<Bytes> receive_for(Clock::duration time) {
    return receive_until(Wait::after(time));
  }

  // For headers that build on this one, with the type of what they serialise.
  internal::ByteChannel& internals() { return this->core(); }

 private:
  using Handle::Handle;

  static Channel to_channel(std::shared_ptr<internal::ChannelSegment> segment) {
    return Channel(std::move(segment));
  }
};

}  // namespace cowshed
