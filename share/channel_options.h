#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cowshed {

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
