#pragma once

#include <cstdint>
#include <vector>

namespace cowshed {

// Messages that nobody will receive: a process ended with them in hand.  A message is in a thread's
// hand from the commit of its receive until that thread receives again, has dropped it (bytes in
// the channel's memory), or ends, other than by _exit(2); a worker's, until its function returns.
struct LostMessages {
  std::int32_t receiver = 0;  // the PID, as in its own PID namespace
  std::uint64_t first = 0;    // the message's number: 0 is the first ever sent
  std::uint64_t count = 0;    // 1, or what a batch took at once
};

// Of all processes since the channel was created.  Each figure is exact at every moment, whoever
// was killed when; one is not as of the same moment as the next.
struct ChannelStats {
  std::uint64_t sent = 0;      // messages
  std::uint64_t received = 0;  // those lost included
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t moved_sent = 0;      // messages among `sent` that were moved-out buffers
  std::uint64_t moved_received = 0;  // and among `received`
  std::uint64_t bytes_moved = 0;     // of moved_sent, among bytes_sent
  std::uint64_t outstanding = 0;     // bytes of blocks in use now: written, queued or in hand
  std::uint32_t processes = 0;       // attached now
  std::vector<LostMessages> lost;    // in no order
  // Lost before those, by receivers whose place others took since (1,024 are remembered).
  std::uint64_t lost_before = 0;
};

}  // namespace cowshed
