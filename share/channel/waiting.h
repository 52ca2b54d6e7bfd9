#pragma once

#include <chrono>
#include <cstdint>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/error.h>
#include <cowshed/share/channel/layout.h>
#include <cowshed/share/channel/options.h>
#include <cowshed/share/channel/segment.h>

// How a call waits: it attempts, spins for some 5 us, sleeps, and attempts again.  Not for users.
//
// No sleep lasts longer than 4 ms (64 ms where many wait).  After it the thread sweeps, so a peer
// that died before it woke anybody delays others and does not block them.
namespace cowshed::internal {

// Polls for some 5 us.  Returns whether `ready` became true.
template <class Ready>
bool spin(Ready&& ready) {
  constexpr int kSpins = 200;
  for (int i = 0; i < kSpins; ++i) {
    if (ready()) return true;
    arch::pause();
  }
  return false;
}

// The time between two attempts of one call.
class Waiting {
 public:
  enum class For : std::uint8_t { message, slot, memory };

  Waiting(ChannelSegment& segment, const Wait& wait, For what)
      : segment_(segment), wait_(wait), for_(what) {}
  ~Waiting() {
    if (slept_) wake_next();
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  // Returns when another attempt may succeed, or the error of the call.
  Expected<void> after(Attempt attempt);

  // For a message, in a process that has joined: makes the descriptor unreadable if the channel is
  // empty.  Returns whether it was both at some moment of this call.
  Expected<bool> drain_event();

 private:
  channel_layout::Lock& busy_lock() const;
  Expected<void> wait_for_lock(channel_layout::Lock& lock);
  bool back_off(const channel_layout::Lock& lock) const;
  Expected<void> check_holder(std::uint64_t holder);

  Expected<void> wait_for_peer();
  Expected<void> wait_for_sender_to_leave();
  Expected<void> give_up_at_once();
  Expected<void> give_up_at_deadline();
  Expected<void> timed_out(const char* state) const;
  Expected<void> interrupted() const;

  bool ready() const;
  void sleep();
  void wake_next();
  channel_layout::Control::Sleep& event() const;
  std::chrono::nanoseconds at_most(std::chrono::nanoseconds time) const;

  ChannelSegment& segment_;
  const Wait& wait_;
  For for_;
  bool slept_ = false;
  std::uint32_t prepared_ = 0;  // the event's word at the last barrier
  Wait::Clock::time_point busy_since_{};
};

// The first attempts to receive, without the cost of retry().
template <class Try>
Attempt try_spinning(ChannelSegment& segment, const Wait& wait, Try&& attempt_once) {
  Attempt attempt = attempt_once();
  if (attempt == Attempt::blocked && wait.mode != Wait::Mode::never) {
    segment.clear_hand();
    if (spin([&] { return segment.has_message(); })) attempt = attempt_once();
  }
  return attempt;
}

// Attempts again until one succeeds or the wait is over.  `attempt`: the result of the last one.
template <class Try>
Expected<void> retry(ChannelSegment& segment, const Wait& wait, Waiting::For what, Attempt attempt,
                     Try&& attempt_once) {
  Waiting waiting(segment, wait, what);
  while (attempt != Attempt::done) {
    if (auto waited = waiting.after(attempt); !waited) return waited;
    attempt = attempt_once();
  }
  return {};
}

}  // namespace cowshed::internal
