#pragma once

#include <cstdint>

#include <cowshed/share/channel/segment.h>

// Where messages are committed.  Not for users.
//
// A send is one store to `tail`, made while holding S.  A receive is one store to `head`, made
// while holding R.  Everything before the store is invisible to other processes, and everything
// after it only wakes them.  So a process that dies here has either done all or nothing.
namespace cowshed::internal {

template <class Write>
inline Attempt ChannelSegment::try_send(std::uint64_t& count, Write&& write) {
  const ThreadState* state = this_thread();
  if (state == nullptr) [[unlikely]]
    return Attempt::not_joined;
  Control::Side& side = control_->sender;
  if (!lock(side.lock, state->lock)) return Attempt::busy;
  if (closed()) [[unlikely]]
    return leave(side.lock, state->lock, Attempt::closed);
  const std::uint64_t tail = control_->tail.value.load(std::memory_order_relaxed);
  std::uint64_t used = tail - side.seen.load(std::memory_order_relaxed);
  if (used > plan_.slots || plan_.slots - used < count) {
    const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
    side.seen.store(head, std::memory_order_relaxed);
    used = tail - head;
    if (used >= plan_.slots) [[unlikely]]
      return leave(side.lock, state->lock,
                   used == plan_.slots ? Attempt::blocked : Attempt::damaged);
  }
  const std::uint64_t room = plan_.slots - used;
  const std::uint64_t written = writable(tail, count < room ? count : room);
  if (written == 0) [[unlikely]]
    return leave(side.lock, state->lock, Attempt::unbacked);
  count = written;
  if (control_->seldom.polled.load(std::memory_order_seq_cst) != channel_layout::kNever &&
      !signal_pollers()) [[unlikely]] {
    return leave(side.lock, state->lock, Attempt::busy);
  }
  write(tail, count);
  control_->tail.value.store(tail + count, std::memory_order_release);  // the commit
  unlock(side.lock, state->lock);
  notify(control_->items.event);
  __builtin_prefetch(slot(tail + count), 1);  // for the next send
  return Attempt::done;
}

template <class Read>
inline Attempt ChannelSegment::try_receive(std::uint64_t& count, Read&& read) {
  const ThreadState* state = this_thread();
  if (state == nullptr || state->held == nullptr) [[unlikely]]
    return Attempt::not_joined;
  Control::Side& side = control_->receiver;
  if (!lock(side.lock, state->lock)) return Attempt::busy;
  const std::uint64_t head = control_->head.value.load(std::memory_order_relaxed);
  std::uint64_t ready = side.seen.load(std::memory_order_relaxed) - head;
  if (ready - 1 >= plan_.slots || ready < count) {
    __builtin_prefetch(slot(head));  // while `tail` comes from the sender's CPU
    const std::uint64_t tail = control_->tail.value.load(std::memory_order_acquire);
    side.seen.store(tail, std::memory_order_relaxed);
    ready = tail - head;
    if (ready - 1 >= plan_.slots)
      return leave(side.lock, state->lock, ready == 0 ? Attempt::blocked : Attempt::damaged);
  }
  count = count < ready ? count : ready;
  if (!read(head, count)) [[unlikely]]
    return leave(side.lock, state->lock, Attempt::damaged);
  state->held->store(channel_layout::held(head, count), std::memory_order_release);
  control_->head.value.store(head + count, std::memory_order_release);  // the commit
  unlock(side.lock, state->lock);
  notify(control_->space.event);
  return Attempt::done;
}

}  // namespace cowshed::internal
