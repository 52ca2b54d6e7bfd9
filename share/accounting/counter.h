#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/published_layout.h>

// The room share/accounting: what was sent, counted by type.  It may use base, share/os and
// share/process.
//
// This header counts; share/transfer_report.h reads the counts.  Not for users.  Everything here is
// thread-safe.
//
//   const TransferCounter counter("channel", "jobs");
//   const TransferRow row = counter.row(type_name<Job>(), TransferKind::value);  // once
//   row.add(1, sizeof(Job));                                                     // at each send
namespace cowshed {

using TransferKind = layout::TransferKind;

namespace internal {

// A thread's own counts, so that threads do not contend.
struct ThreadLane {
  layout::TransferCount* counts = nullptr;  // by row; null: the thread has no lane yet
  bool shared = false;                      // other threads count here, too
};
// initial-exec: one load.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadLane thread_lane;
ThreadLane take_thread_lane() noexcept;

// One type, sent in one way by one channel or launch.  A row stays valid for ever, also in forked
// children, whose counts start at 0.
class TransferRow {
 public:
  explicit TransferRow(std::uint32_t index) noexcept : index_(index) {}

  // Counts `messages` with `objects` objects.  `bytes`: the bytes copied, or else the size of the
  // objects.  Takes some ns, no lock and no allocation.
  void add(std::uint64_t objects, std::uint64_t bytes, std::uint64_t messages = 1) const noexcept {
    const ThreadLane lane = this_thread();
    layout::TransferCount& count = lane.counts[index_];
    const auto raise = [&](auto& total, std::uint64_t by) {
      const std::atomic_ref counted(total);
      if (lane.shared) [[unlikely]]
        counted.fetch_add(by, std::memory_order_relaxed);
      else counted.store(counted.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
    };
    raise(count.messages, messages);
    raise(count.objects, objects);
    raise(count.bytes, bytes);
  }

 private:
  static ThreadLane this_thread() noexcept {
    const ThreadLane lane = thread_lane;
    return lane.counts == nullptr ? take_thread_lane() : lane;
  }

  std::uint32_t index_;
};

// A channel, or a launch of workers.  Counters with the same origin and name count together.
class TransferCounter {
 public:
  // `origin`: "channel", "launch", "result" or "freeze".
  TransferCounter(std::string_view origin, std::string_view name) : origin_(origin), name_(name) {}

  // Returns the row of a type; `type` is type_name<T>().  Searches all rows under a lock, so keep
  // the row.  After 1,022 rows, all new types count as "(others)".
  TransferRow row(std::string_view type, TransferKind kind) const;

  // row() and add(), for rare events.
  void add(std::string_view type, TransferKind kind, std::uint64_t objects,
           std::uint64_t bytes) const {
    row(type, kind).add(objects, bytes);
  }

 private:
  std::string origin_;
  std::string name_;
};

struct CountedTransfer {
  layout::Transfer what;
  layout::TransferCount count;  // of this process
};
// Returns all rows that have counts.  While other threads send, this is not an atomic snapshot.
std::vector<CountedTransfer> counted_transfers();

}  // namespace internal
}  // namespace cowshed
