#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <string>
#include <utility>

namespace cowshed {

// How long a call may wait.  By itself: for ever.
//
//   channel.receive();         channel.receive(std::chrono::milliseconds(5));
//   channel.receive(stop);     channel.receive(deadline);
struct Wait {
  using Clock = std::chrono::steady_clock;
  enum class Mode : std::uint8_t { forever, timed, never };

  Wait(std::stop_token until_stopped = {}) : stop(std::move(until_stopped)) {}
  Wait(Clock::time_point until) : mode(Mode::timed), deadline(until) {}
  template <class Rep, class Period>
  Wait(std::chrono::duration<Rep, Period> time) : Wait(after(time)) {}
  static Wait never() { return {Mode::never}; }

  Mode mode = Mode::forever;
  Clock::time_point deadline;
  std::stop_token stop;

 private:
  Wait(Mode how) : mode(how) {}
  // For ever, if the clock does not go as far.
  static Clock::time_point after(Clock::duration time) {
    const Clock::time_point now = Clock::now();
    return time < Clock::time_point::max() - now ? now + time : Clock::time_point::max();
  }
};

struct ChannelOptions {
  std::string name = "channel";  // for reports and /proc/PID/maps; at most 63 bytes
  std::size_t slots = 1024;      // messages that are sent and not received; then `send` waits
  // Bytes of payload that may be outstanding out of line (written, queued or held by receivers),
  // in pages of 4 KiB; then `send` and `buffer` wait.  At most 1 TiB.  A limit, not a reservation.
  std::uint64_t memory = std::uint64_t{1} << 30U;
};

// How a channel is handed to a process that is not forked.
struct ChannelDescriptors {
  int segment = -1;  // a memfd "cowshed-channel:NAME"
  int event = -1;    // an eventfd, what descriptor() polls
};

}  // namespace cowshed
