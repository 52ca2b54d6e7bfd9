#include <algorithm>
#include <ctime>
#include <string>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/try.h>
#include <cowshed/share/channel/waiting.h>
#include <cowshed/share/os/sync.h>

namespace cowshed::internal {

using namespace channel_layout;
using namespace std::chrono_literals;

namespace {

constexpr std::chrono::nanoseconds kLongPiece = 64ms;
constexpr std::chrono::nanoseconds kLockPiece = 1ms;   // nobody is inside for long
constexpr std::chrono::nanoseconds kSleepPiece = 4ms;  // of sleep, then dead peers are looked for
constexpr std::chrono::nanoseconds kLittlePatience = 20ms;
constexpr std::chrono::nanoseconds kPatience =
    1s;  // of a call that should not wait with a lock's holder that runs
constexpr auto kShortly = 100us;

// Has a lock unless another has it; lets it go also where the thread is cancelled.
class Holding {
 public:
  Holding(Lock& lock, std::uint64_t me) : lock_(lock) {
    std::uint64_t nobody = 0;
    held_ = lock_.holder.compare_exchange_strong(nobody, me);
  }
  ~Holding() {
    if (held_) {
      lock_.holder.store(0);
      if ((lock_.released.load() & 1U) != 0) ChannelSegment::wake_all(lock_.released);
    }
  }
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;
  explicit operator bool() const { return held_; }

 private:
  Lock& lock_;
  bool held_;
};

}  // namespace

Expected<void> Waiting::after(Attempt attempt) {
  switch (attempt) {
    case Attempt::outside: return segment_.join(for_ == For::message);
    case Attempt::closed: return segment_.closed_error();
    case Attempt::damaged:
      return segment_.error(ErrorCode::bad_channel, " is damaged: somebody wrote to its memory");
    case Attempt::busy: return for_lock(busy_lock());
    case Attempt::blocked: return for_others();
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

// Somebody else is inside for a moment, or preempted, or stopped, or dead.
Expected<void> Waiting::for_lock(Lock& lock) {
  if (spin([&] { return lock.holder.load(std::memory_order_relaxed) == 0; })) return {};
  const std::uint64_t seen = lock.holder.load();
  if (seen == 0) return {};
  if (segment_.dead(party_of(seen))) {
    segment_.release_of_dead(lock, seen);
    return {};
  }
  TRY_VOID(be_patient(seen));
  const std::uint32_t word = lock.released.fetch_or(1) | 1U;
  barrier_in_all_processes();
  if (lock.holder.load() == seen &&
      futex_wait(&lock.released, word, at_most(kLockPiece)) == Woken::by_peer) {
    lock.released.fetch_or(1);  // others may still sleep
  }
  return {};
}

// Whether to go on waiting for the holder of a lock.
Expected<void> Waiting::be_patient(std::uint64_t holder) {
  const auto now = Wait::Clock::now();
  if (busy_since_ == Wait::Clock::time_point{}) busy_since_ = now;
  if (wait_.mode == Wait::Mode::forever) return interrupted();
  const bool timed = wait_.mode == Wait::Mode::timed;
  if (timed && now < wait_.deadline) return {};
  const bool too_long = now - busy_since_ > (timed ? kLittlePatience : kPatience);
  if (timed && too_long && !segment_.stopped(holder)) return timed_out("busy");
  if (too_long || segment_.stopped(holder)) {
    return segment_.error(ErrorCode::peer_stopped,
                          ": thread " + std::to_string(thread_of(holder)) +
                              " does not go on in the midst of a call; continue it, or kill it");
  }
  return {};
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

// The channel is empty, or full, or has no memory now.
Expected<void> Waiting::for_others() {
  if (for_ == For::message) {
    segment_.empty_hand();
    if (segment_.closed()) {
      TRY_VOID(senders_out());
      return segment_.has_message() ? Expected<void>()
                                    : segment_.error(ErrorCode::closed, " is closed and empty");
    }
  } else if (segment_.closed()) {
    return segment_.closed_error();
  }
  if (wait_.mode == Wait::Mode::never) return give_up_at_once();
  if (for_ != For::memory && spin([&] { return ready(); })) return {};
  TRY_VOID(interrupted());
  if (wait_.mode == Wait::Mode::timed && Wait::Clock::now() >= wait_.deadline) return give_up();
  sleep();
  return {};
}

// Until whoever was inside S has left it: what they commit counts.
Expected<void> Waiting::senders_out() {
  Lock& lock = segment_.control().sender.lock;
  const std::uint64_t seen = lock.holder.load();
  if (spin([&] { return lock.holder.load() != seen || seen == 0; })) return {};
  while (lock.holder.load() == seen) {
    if (segment_.dead(party_of(seen))) {
      segment_.release_of_dead(lock, seen);  // not from whoever took it over meanwhile
      break;
    }
    TRY_VOID(be_patient(seen));
    const timespec shortly = {0, std::chrono::nanoseconds(kShortly).count()};
    nanosleep(&shortly, nullptr);
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

// Whether the channel was empty and the descriptor unreadable at some time of this call.
Expected<bool> Waiting::drain_event() {
  if (!is_ready(segment_.descriptors().event)) return true;
  const Holding draining(segment_.control().seldom.drainer, segment_.this_thread()->lock);
  TRY_VOID(draining ? senders_out() : for_lock(segment_.control().seldom.drainer));
  if (!draining || segment_.has_message() || segment_.finish_closing()) return false;
  segment_.drain_event();
  return true;
}

Expected<void> Waiting::give_up() {
  const Control& control = segment_.control();
  for (const Lock* lock : {&control.sender.lock, &control.receiver.lock})
    if (const std::uint64_t holder = lock->holder.load(); segment_.stopped(holder))
      return be_patient(holder);
  return timed_out(for_ == For::message ? "empty" : for_ == For::slot ? "full" : "out of memory");
}

Expected<void> Waiting::timed_out(const char* state) const {
  return segment_.error(ErrorCode::timed_out,
                        " was still " + std::string(state) + " at the deadline");
}

Control::Sleep& Waiting::place() const {
  Control& control = segment_.control();
  return for_ == For::message ? control.items : for_ == For::slot ? control.space : control.memory;
}

void Waiting::sleep() {
  Control::Sleep& here = place();
  const std::uint32_t seen = here.event.fetch_or(1) | 1U;
  if (prepared_ != seen) {
    prepared_ = seen;
    barrier_in_all_processes();
    if (for_ == For::memory) return;  // to look again with the bit set
  }
  if (ready() || segment_.closed()) return;
  auto& own = segment_.own_sleepers(static_cast<std::size_t>(for_));
  const std::uint32_t before = here.sleepers.fetch_add(1);
  own.fetch_add(1);
  // Many look after the dead in turns, each the more seldom.
  const auto piece =
      std::clamp<std::chrono::nanoseconds>(before * kSleepPiece / 4, kSleepPiece, kLongPiece);
  const Woken woken = futex_wait(&here.event, seen, at_most(piece));
  own.fetch_sub(1);
  here.sleepers.fetch_sub(1);
  if (woken == Woken::by_peer) slept_ = true;
  else if (woken == Woken::by_time) segment_.sweep_if_due();
}

// Whoever woke this thread cleared the bit for all: others who still sleep need it.
void Waiting::wake_next() {
  if (Control::Sleep& here = place(); here.sleepers.load() != 0) {
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

}  // namespace cowshed::internal
