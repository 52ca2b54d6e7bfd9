#include <climits>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/share/channel/segment.h>
#include <cowshed/share/os/sync.h>

// How a channel wakes those that wait: futexes, and the eventfd of those that poll.
namespace cowshed::internal {

using namespace channel_layout;

void ChannelSegment::wake_one(Event& event) {
  std::uint32_t seen = event.load();
  while ((seen & 1U) != 0) {
    if (event.compare_exchange_weak(seen, seen + 1)) {  // the bit off, the sequence on
      futex_wake(&event, 1);
      return;
    }
  }
}

void ChannelSegment::wake_all(Event& event) {
  std::uint32_t seen = event.load();
  while (!event.compare_exchange_weak(seen, (seen & ~1U) + 2)) {
  }
  futex_wake(&event, INT_MAX);
}

void ChannelSegment::signal_event(std::uint64_t count) const {
  // It fails only when it is readable already.  Not write(2), at which pthread_cancel() could end
  // the thread inside the lock.
  syscall(SYS_write, descriptors_.event, &count, sizeof count);
}

bool ChannelSegment::signal_pollers() {
  if (control_->seldom.drainer.holder.load() != 0) return false;
  if (control_->seldom.signalled.load(std::memory_order_relaxed) == 0) {
    signal_event(1);
    control_->seldom.signalled.store(1, std::memory_order_relaxed);
  }
  return true;
}

void ChannelSegment::drain_event() {
  control_->seldom.signalled.store(0, std::memory_order_relaxed);
  // Each reading takes one off: most often there is one, and one more of each who died before it
  // said that it had signalled.
  std::uint64_t one = 0;
  for (std::uint32_t i = 0; i < kParties && control_->seldom.closed.load() == kOpen &&
                            syscall(SYS_read, descriptors_.event, &one, sizeof one) == sizeof one;
       ++i) {
  }
}

}  // namespace cowshed::internal
