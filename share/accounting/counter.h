#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/published_layout.h>

// Not for users, who read what is counted with transfer_report.h: how channels and launches say
// what they send.
//
//   const TransferCounter counter("channel", "jobs");
//   const TransferRow row = counter.row(type_name<Job>(), TransferKind::value);  // once
//   row.add(1, sizeof(Job));                                                     // at each send
namespace cowshed {

using TransferKind = layout::TransferKind;

namespace internal {

// Where a thread counts: no other thread writes there unless it is `shared`.
struct ThreadLane {
  layout::TransferCount* counts = nullptr;  // by row; null: it has none yet
  bool shared = false;
};
// initial-exec: one load.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadLane thread_lane;
ThreadLane take_thread_lane() noexcept;

// One type sent in one way by one channel or launch.  For ever: forked children use it for counts
// of their own, which begin at 0.  All of it is thread-safe.
class TransferRow {
 public:
  explicit TransferRow(std::uint32_t index) noexcept : index_(index) {}

  // One message with this many objects.  `bytes`: by value those that are sent, else those of the
  // objects, which stay where they are.  Some ns, no lock, no allocation.
  void add(std::uint64_t objects, std::uint64_t bytes, std::uint64_t messages = 1) const noexcept {
    const ThreadLane lane = this_thread();
    layout::TransferCount& count = lane.counts[index_];
    const auto raise = [&](std::uint64_t& total, std::uint64_t by) {
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

// A channel, or a launch of workers.  Counters of one origin and name count together.
class TransferCounter {
 public:
  // "channel" or "launch", and what the user calls it.
  TransferCounter(std::string_view origin, std::string_view name) : origin_(origin), name_(name) {}

  // `type` as type_name<T>() gives it.  Looks through all rows under a lock: keep it.  A process
  // has at most 1,024; what comes after them is counted as "(others)".
  TransferRow row(std::string_view type, TransferKind kind) const;

  // row() and add(), for what happens seldom.
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
// Every row of which anything was counted.  While others send, each of its figures is as of some
// moment in the call.
std::vector<CountedTransfer> counted_transfers();

}  // namespace internal
}  // namespace cowshed
