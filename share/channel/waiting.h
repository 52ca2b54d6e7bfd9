#pragma once

#include <chrono>
#include <cstdint>

#include <cowshed/base/error.h>
#include <cowshed/share/channel/layout.h>
#include <cowshed/share/channel/options.h>
#include <cowshed/share/channel/segment.h>

// How a channel's calls wait.  Not for users.
namespace cowshed::internal {

// A moment's look, some 5 us, before more is done about waiting.
template <class Ready>
bool spin(Ready&& ready) {
  constexpr int kSpins = 200;
  for (int i = 0; i < kSpins; ++i) {
    if (ready()) return true;
    __builtin_ia32_pause();
  }
  return false;
}

// The time between the attempts of one call.
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

  // Returns when it is worth another attempt, or with what the call must return.
  Expected<void> after(Attempt attempt);

 private:
  Expected<void> for_lock(channel_layout::Lock& lock);
  Expected<void> for_others();
  Expected<void> be_patient(std::uint64_t holder);
  Expected<void> interrupted() const;
  Expected<void> senders_out();
  Expected<void> give_up_at_once();
  Expected<bool> drain_event();
  Expected<void> give_up();
  Expected<void> timed_out(const char* state) const;
  void sleep();
  void wake_next();
  bool ready() const;
  channel_layout::Lock& busy_lock() const;
  channel_layout::Control::Sleep& place() const;
  std::chrono::nanoseconds at_most(std::chrono::nanoseconds time) const;

  ChannelSegment& segment_;
  const Wait& wait_;
  For for_;
  bool slept_ = false;
  std::uint32_t prepared_ = 0;  // the event's word when it was last looked at
  Wait::Clock::time_point busy_since_{};
};

}  // namespace cowshed::internal
