#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

// The values that a channel takes and returns: time limits, options, descriptors, statistics.
namespace cowshed {

// How long a call may wait.  The default is for ever.
//
//   channel.receive();                              // for ever
//   channel.receive(std::chrono::milliseconds(5));  // at most 5 ms
//   channel.receive(deadline);                      // until this time of Wait::Clock
//   channel.receive(stop_token);                    // until it is asked to stop
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
  // A time beyond the clock's range becomes its last time point, and a negative one is over.
  template <class Rep, class Period>
  static Clock::time_point after(std::chrono::duration<Rep, Period> time) {
    using Exact = std::chrono::duration<long double, Clock::period>;
    const Clock::time_point now = Clock::now();
    if (Exact(time) >= Exact(Clock::time_point::max() - now)) return Clock::time_point::max();
    return time > time.zero() ? now + std::chrono::duration_cast<Clock::duration>(time) : now;
  }
};

struct ChannelOptions {
  std::string name = "channel";  // 1 to 63 bytes, for reports and /proc/PID/maps
  std::size_t slots = 1024;      // capacity in messages; `send` waits when it is used up
  // Capacity in bytes for payload outside the slots, at most 1 TiB, rounded up to 4 KiB.  Bytes
  // count while they are written, queued or held by a receiver: up to 4 KiB by the next power of
  // two, beyond in pages of 4 KiB.  `send` and `loan` wait when it is used up.  A limit, not a
  // reservation.
  std::uint64_t memory = std::uint64_t{1} << 30U;
};

// A channel's two file descriptors, for a process that is not forked from this one.
struct ChannelDescriptors {
  int segment = -1;  // the memfd "cowshed-channel:NAME"
  int event = -1;    // the eventfd that descriptor() returns
};

// Messages that were received and then lost, because their receiver died while it held them.  A
// thread holds a message from its receive until it receives again, drops the message (bytes in the
// channel's memory only) or ends; a worker holds it until its function returns.  A process that
// ends by _exit(2) loses what its threads hold.
struct LostMessages {
  std::int32_t receiver = 0;  // the PID, in the receiver's PID namespace
  std::uint64_t first = 0;    // the number of the first; 0 is the first message ever sent
  std::uint64_t count = 0;    // 1, or the size of the batch
};

// Totals over all processes since the channel was created.  Each counter is exact, even if
// processes were killed.  Together they are not an atomic snapshot.
struct ChannelStats {
  std::uint64_t sent = 0;      // messages
  std::uint64_t received = 0;  // messages, lost ones included
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t moved_sent = 0;      // those messages of `sent` that were not copied
  std::uint64_t moved_received = 0;  // those messages of `received` that were not copied
  std::uint64_t bytes_moved = 0;     // bytes of moved_sent, included in bytes_sent
  std::uint64_t outstanding = 0;     // bytes of the channel's memory in use now
  std::uint32_t processes = 0;       // processes that take part now
  std::vector<LostMessages> lost;    // in no order
  // Lost messages that left `lost` because later threads needed their entries: there are 1,024.
  std::uint64_t lost_before = 0;
};

}  // namespace cowshed
