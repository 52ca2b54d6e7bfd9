#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/share/channel/bytes.h>
#include <cowshed/share/channel/options.h>
#include <cowshed/share/channel/stats.h>
#include <cowshed/share/channel/value_channel.h>

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

// Messages of
// * trivially copyable T, copied into the ring's slots; a Ref<U> among them;
// * other types that have a Codec (codec.h), encoded and decoded again;
// * Bytes of any size, 0 included.  Up to 192 lie in the ring's slots, as those of an encoding do,
//   more in blocks of the channel's memory.
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
  // Errors: invalid_argument, out_of_memory (the ring), system_call.
  static Expected<Channel> create(const ChannelOptions& options = {}) {
    return internal::create_segment(options, Core::message_type()).map(to_channel);
  }

  // For descriptors() of another process.  Takes both over if it succeeds, and makes them
  // close-on-exec.  Errors: foreign_descriptor (not a channel's), bad_channel (damaged, of another
  // version), wrong_type, system_call (EBADF: no descriptor).
  static Expected<Channel> from_descriptors(const ChannelDescriptors& descriptors) {
    return internal::open_segment(descriptors, Core::message_type()).map(to_channel);
  }

  // Copies, or encodes: then it throws std::bad_alloc, and an object in which a Codec fails is an
  // invalid_argument.
  Expected<void> send(Sent message, const Wait& wait = {}) { return core_.send(message, wait); }
  Expected<void> try_send(Sent message) { return send(message, Wait::never()); }
  // Moves: what buffer() or a receive of this channel gave is handed over where it lies, and is
  // unmapped from this process; it is empty afterwards.  After an error it is as before.  What
  // another channel gave is copied.
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

  // Copies values and few bytes.  An object that cannot be decoded is a bad_encoding and gone.  It
  // is in this thread's hand until the thread receives again.
  Expected<T> receive(const Wait& wait = {}) { return core_.receive(wait); }
  Expected<T> try_receive() { return receive(Wait::never()); }

  // `size` bytes to write to and then send; of a block, all zero at first unless it was used
  // before.  Waits as `send` does when `memory` is used up, and has the same errors.
  Expected<Bytes> buffer(std::size_t size, const Wait& wait = {})
    requires(kOfBytes)
  {
    return core_.buffer(size, wait);
  }
  Expected<Bytes> try_buffer(std::size_t size)
    requires(kOfBytes)
  {
    return buffer(size, Wait::never());
  }

  // Many values at a time, for throughput.  Sent are all, in as many pieces as there is room for,
  // others' between them; returns how many, which is fewer than all when an error came after the
  // first.
  Expected<std::size_t> send_batch(std::span<const T> messages, const Wait& wait = {})
    requires(kOfValues)
  {
    return core_.send_batch(messages, wait);
  }
  Expected<std::size_t> try_send_batch(std::span<const T> messages) {
    return send_batch(messages, Wait::never());
  }
  // Waits for one, takes as many as there are and fit, in order; returns how many.  All of them are
  // in this thread's hand at once.
  Expected<std::size_t> receive_batch(std::span<T> into, const Wait& wait = {})
    requires(kOfValues)
  {
    return core_.receive_batch(into, wait);
  }
  Expected<std::size_t> try_receive_batch(std::span<T> into) {
    return receive_batch(into, Wait::never());
  }

  // No more can be sent, from now on in every process; what was sent can still be received, then
  // `receive` fails with `closed`.  Wakes all who wait.  Again: nothing.  Never blocks.
  void close() { core_.close(); }
  bool closed() const { return core_.closed(); }

  // A descriptor for poll, select or epoll, to read: readable when there may be a message, or the
  // channel is closed.  Then receive by the try form until that fails with would_block, which makes
  // it unreadable; any process may take the message first.  Level-triggered, or edge-triggered in
  // an epoll of each process's own.  Whoever is killed meanwhile, those who are left are told.
  // Never read from or write to it.  Owned by the channel.  From the first such call on, in any
  // process, a send costs one more system call when the descriptor had become unreadable.
  Expected<int> descriptor() { return core_.descriptor(); }

  // To be inherited by, or sent to, a process that is not forked from this one; owned by the
  // channel, close-on-exec.  Not to be closed: a process maps the blocks of a size when it first
  // touches one.
  ChannelDescriptors descriptors() const { return core_.descriptors(); }

  // Looks for processes that died, too, so that what they lost is counted.
  ChannelStats stats() const { return core_.stats(); }

  const std::string& name() const { return options().name; }
  const ChannelOptions& options() const { return core_.options(); }

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
