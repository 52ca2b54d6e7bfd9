#include <algorithm>
#include <cerrno>
#include <climits>
#include <memory>
#include <string>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/try.h>
#include <cowshed/share/channel/waiting.h>
#include <cowshed/share/os/sync.h>

// The busy side wakes by ChannelSegment's functions, at the end of this file.  The idle side sleeps
// by class Waiting.  docs/explanation/channel-protocol.md explains their order under "Waiting" and
// "Memory order".
namespace cowshed::internal {

using namespace channel_layout;
using namespace std::chrono_literals;

namespace {

constexpr std::chrono::nanoseconds kSleep = 4ms;       // then the thread sweeps
constexpr std::chrono::nanoseconds kLongSleep = 64ms;  // where many wait
constexpr std::chrono::nanoseconds kLockSleep = 1ms;   // holders leave soon
// Between two looks at a lock that is busy.
constexpr int kFirstPauses = 16;
constexpr int kMostPauses = 128;
constexpr int kMostRounds = 16;
constexpr std::chrono::nanoseconds kPollSleep = 100us;
// How long a call waits beyond its deadline for a lock's holder that is not stopped.
constexpr std::chrono::nanoseconds kTimedPatience = 20ms;
constexpr std::chrono::nanoseconds kTryPatience = 1s;

// For a std::unique_ptr, which unlocks even if the thread is cancelled.
struct Unlock {
  void operator()(Lock* lock) const {
    lock->holder.store(0);
    if ((lock->released.load() & 1U) != 0) ChannelSegment::wake_all(lock->released);
  }
};

}  // namespace

Expected<void> Waiting::after(Attempt attempt) {
  switch (attempt) {
    case Attempt::not_joined: return segment_.join(for_ == For::message);
    case Attempt::unbacked: return segment_.back_chunk();
    case Attempt::closed: return segment_.closed_error();
    case Attempt::damaged:
      return segment_.error(ErrorCode::bad_channel, " is damaged: somebody wrote to its memory");
    case Attempt::busy: return wait_for_lock(busy_lock());
    case Attempt::blocked: return wait_for_peer();
    case Attempt::done: break;
  }
  return {};
}

Lock& Waiting::busy_lock() const {
  Control& control = segment_.control();
  return for_ == For::message                        ? control.receiver.lock
         : control.seldom.drainer.holder.load() != 0 ? control.seldom.drainer
                                                     : control.sender.lock;
}

// Returns true when the lock may be free, and false if its holders get nothing done.  A thread that
// looks at the lock takes its cache line away from the holder.  So it looks seldom, and the holder
// moves many messages in a row meanwhile.
bool Waiting::back_off(const Lock& lock) const {
  const Control& control = segment_.control();
  const auto& moved = for_ == For::message ? control.head.value : control.tail.value;
  for (int round = 0; round < kMostRounds; ++round) {
    const std::uint64_t before = moved.load(std::memory_order_relaxed);
    for (int pauses = kFirstPauses; pauses <= kMostPauses; pauses *= 2) {
      for (int i = 0; i < pauses; ++i) arch::pause();
      if (lock.occupant() == 0) return true;
    }
    if (moved.load(std::memory_order_relaxed) == before) break;
  }
  return false;
}

// The holder is inside for a moment, preempted, stopped or dead.
Expected<void> Waiting::wait_for_lock(Lock& lock) {
  std::uint64_t holder = lock.holder.load();
  if (rests_with(holder, segment_.this_thread()->lock) && lock.occupant() == 0) return {};
  if (is_at_rest(holder) ? ChannelSegment::withdraw(lock, holder) : back_off(lock)) return {};
  holder = lock.holder.load();
  if (holder == 0) return {};
  if (segment_.is_dead(party_of(holder))) {
    segment_.release_dead_lock(lock, holder);
    return {};
  }
  TRY_VOID(check_holder(holder));
  const std::uint32_t word = lock.released.fetch_or(1) | 1U;
  barrier_in_all_processes();
  if (lock.holder.load() == holder && lock.occupant() != 0 &&
      futex_wait(&lock.released, word, at_most(kLockSleep)) == Woken::by_peer) {
    lock.released.fetch_or(1);  // others may still sleep
  }
  return {};
}

// An error if the call must not wait longer for this holder of a lock.
Expected<void> Waiting::check_holder(std::uint64_t holder) {
  const auto now = Wait::Clock::now();
  if (busy_since_ == Wait::Clock::time_point{}) busy_since_ = now;
  if (wait_.mode == Wait::Mode::forever) return interrupted();
  const bool timed = wait_.mode == Wait::Mode::timed;
  if (timed && now < wait_.deadline) return {};
  const bool too_long = now - busy_since_ > (timed ? kTimedPatience : kTryPatience);
  if (timed && too_long && !segment_.is_stopped(holder)) return timed_out("busy");
  if (too_long || segment_.is_stopped(holder)) {
    return segment_.error(ErrorCode::peer_stopped,
                          ": thread " + std::to_string(thread_of(holder)) +
                              " does not go on in the midst of a call; continue it, or kill it");
  }
  return {};
}

// The channel is empty, full or out of memory.
Expected<void> Waiting::wait_for_peer() {
  if (for_ == For::message) {
    segment_.clear_hand();
    if (segment_.closed()) {
      TRY_VOID(wait_for_sender_to_leave());
      return segment_.has_message() ? Expected<void>()
                                    : segment_.error(ErrorCode::closed, " is closed and empty");
    }
  } else if (segment_.closed()) {
    return segment_.closed_error();
  }
  if (wait_.mode == Wait::Mode::never) return give_up_at_once();
  if (for_ != For::memory && spin([&] { return ready(); })) return {};
  TRY_VOID(interrupted());
  if (wait_.mode == Wait::Mode::timed && Wait::Clock::now() >= wait_.deadline)
    return give_up_at_deadline();
  sleep();
  return {};
}

// Returns when the present holder of S has unlocked it or died: what it commits must be received.
Expected<void> Waiting::wait_for_sender_to_leave() {
  Lock& lock = segment_.control().sender.lock;
  const std::uint64_t holder = lock.holder.load();
  if (holder == 0) return {};
  barrier_in_all_processes();  // whoever enters without a barrier now sees that it may not
  const auto has_left = [&] {
    // If its thread lets the lock rest meanwhile, it may have entered once more before the barrier.
    const std::uint64_t now = lock.holder.load();
    return party_of(now) != party_of(holder) || thread_of(now) != thread_of(holder) ||
           lock.occupant() == 0;
  };
  if (spin(has_left)) return {};
  while (!has_left()) {
    if (segment_.is_dead(party_of(holder))) {
      segment_.release_dead_lock(lock, holder);  // does nothing if another took it over
      break;
    }
    TRY_VOID(check_holder(holder));
    std::this_thread::sleep_for(kPollSleep);
  }
  return {};
}

Expected<void> Waiting::give_up_at_once() {
  if (for_ == For::slot) return segment_.error(ErrorCode::would_block, " is full");
  if (for_ == For::memory) {
    return segment_.error(ErrorCode::would_block,
                          " is out of memory: messages that wait, or that "
                          "receivers still hold, have it");
  }
  if (segment_.control().seldom.polled.load() != kNever) {
    TRY(const bool drained, drain_event());
    if (!drained) return {};
  }
  return segment_.error(ErrorCode::would_block, " is empty");
}

Expected<bool> Waiting::drain_event() {
  if (!is_ready(segment_.descriptors().event) && errno == 0) return true;
  Lock& drainer = segment_.control().seldom.drainer;
  std::uint64_t nobody = 0;
  const bool free = drainer.holder.compare_exchange_strong(nobody, segment_.this_thread()->lock);
  const std::unique_ptr<Lock, Unlock> draining(free ? &drainer : nullptr);
  TRY_VOID(draining ? wait_for_sender_to_leave() : wait_for_lock(drainer));
  if (!draining || segment_.has_message() || segment_.finish_closing()) return false;
  segment_.drain_event();
  return true;
}

Expected<void> Waiting::give_up_at_deadline() {
  const Control& control = segment_.control();
  for (const Lock* lock : {&control.sender.lock, &control.receiver.lock})
    if (const std::uint64_t holder = lock->occupant(); segment_.is_stopped(holder))
      return check_holder(holder);
  return timed_out(for_ == For::message ? "empty" : for_ == For::slot ? "full" : "out of memory");
}

Expected<void> Waiting::timed_out(const char* state) const {
  return segment_.error(ErrorCode::timed_out,
                        " was still " + std::string(state) + " at the deadline");
}

Expected<void> Waiting::interrupted() const {
  if (wait_.stop.stop_requested())
    return segment_.error(ErrorCode::interrupted, ": asked to stop waiting");
  return {};
}

bool Waiting::ready() const {
  const Control& control = segment_.control();
  if (for_ == For::memory || segment_.closed()) return false;
  if (for_ == For::message) return segment_.has_message();
  const std::uint64_t head = control.head.value.load(std::memory_order_acquire);
  return control.tail.value.load(std::memory_order_acquire) - head < segment_.plan().slots;
}

Control::Sleep& Waiting::event() const {
  Control& control = segment_.control();
  return for_ == For::message ? control.items : for_ == For::slot ? control.space : control.memory;
}

void Waiting::sleep() {
  Control::Sleep& here = event();
  const std::uint32_t word = here.event.fetch_or(1) | 1U;
  if (prepared_ != word) {
    prepared_ = word;
    barrier_in_all_processes();
    if (for_ == For::memory) return;  // to attempt again with the bit set
  }
  if (ready() || segment_.closed()) return;
  auto& own = segment_.own_sleepers(static_cast<std::size_t>(for_));
  const std::uint32_t before = here.sleepers.fetch_add(1);
  own.fetch_add(1);
  // Many sleepers sweep in turns: the more there are, the longer each one sleeps.
  const auto time = std::clamp<std::chrono::nanoseconds>(before * kSleep / 4, kSleep, kLongSleep);
  const Woken woken = futex_wait(&here.event, word, at_most(time));
  own.fetch_sub(1);
  here.sleepers.fetch_sub(1);
  if (woken == Woken::by_peer) slept_ = true;
  else if (woken == Woken::by_time) segment_.sweep_if_due();
}

// The peer that woke this thread cleared the bit for all, so this thread wakes the next sleeper.
void Waiting::wake_next() {
  if (Control::Sleep& here = event(); here.sleepers.load() != 0) {
    here.event.fetch_or(1);
    barrier_in_all_processes();
    if (ready()) ChannelSegment::wake_one(here.event);
  }
}

std::chrono::nanoseconds Waiting::at_most(std::chrono::nanoseconds time) const {
  if (wait_.mode != Wait::Mode::timed) return time;
  const auto now = Wait::Clock::now();
  return now < wait_.deadline ? std::min(wait_.deadline - now, time) : 0ns;
}

std::uint64_t ChannelSegment::after(Lock& lock, std::uint64_t me) {
  constexpr std::uint32_t kInARow = 64;
  const std::uint32_t rests = lock.rests.load(std::memory_order_relaxed);
  if (rests >= kMostRests || (lock.released.load(std::memory_order_relaxed) & 1U) != 0) return 0;
  const bool again = lock.last.load(std::memory_order_relaxed) == me;
  const std::uint32_t in_a_row = again ? lock.in_a_row.load(std::memory_order_relaxed) + 1 : 1;
  lock.last.store(me, std::memory_order_relaxed);
  lock.in_a_row.store(in_a_row, std::memory_order_relaxed);
  if (in_a_row < kInARow) return 0;
  lock.in_a_row.store(0, std::memory_order_relaxed);
  // No number twice, for its thread may still store to its `inside`.
  lock.rests.store(rests + 1, std::memory_order_relaxed);
  return me | kRests | std::uint64_t{rests} << kRestShift;
}

bool ChannelSegment::withdraw(Lock& lock, std::uint64_t holder) {
  if ((holder & kRests) != 0) {
    const std::uint64_t withdrawn = holder ^ (kRests | kWithdrawn);
    if (!lock.holder.compare_exchange_strong(holder, withdrawn)) return true;  // to look again
    holder = withdrawn;
  }
  barrier_in_all_processes();
  if (lock.inside[rest_of(holder)].load() != 0) return false;
  lock.holder.compare_exchange_strong(holder, 0);
  return true;
}

void ChannelSegment::wake_one(Event& event) {
  std::uint32_t word = event.load();
  while ((word & 1U) != 0) {
    if (event.compare_exchange_weak(word, word + 1)) {  // clears the bit, counts the sequence
      futex_wake(&event, 1);
      return;
    }
  }
}

void ChannelSegment::wake_all(Event& event) {
  std::uint32_t word = event.load();
  while (!event.compare_exchange_weak(word, (word & ~1U) + 2)) {
  }
  futex_wake(&event, INT_MAX);
}

bool ChannelSegment::signal_event(std::uint64_t count) const {
  if (!event_is_ours()) return false;
  // Fails only if the eventfd is readable already.  write(2) is a cancellation point, and
  // pthread_cancel() could then end the thread while it holds S.
  syscall(SYS_write, descriptors_.event, &count, sizeof count);
  return true;
}

bool ChannelSegment::signal_pollers() {
  if (control_->seldom.drainer.holder.load() != 0) return false;
  if (control_->seldom.signalled.load(std::memory_order_relaxed) == 0 && signal_event(1))
    control_->seldom.signalled.store(1, std::memory_order_relaxed);
  return true;
}

void ChannelSegment::drain_event() {
  if (!event_is_ours()) return;
  control_->seldom.signalled.store(0, std::memory_order_relaxed);
  // Each read takes one off the count.  Usually the count is one; each sender that died between its
  // write and its store to `signalled` adds one.
  std::uint64_t one = 0;
  for (std::uint32_t i = 0; i < kParties && control_->seldom.closed.load() == kOpen &&
                            syscall(SYS_read, descriptors_.event, &one, sizeof one) == sizeof one;
       ++i) {
  }
}

}  // namespace cowshed::internal
