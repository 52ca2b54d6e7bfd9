#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/accounting/readable_type.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/process/fork_handlers.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>

namespace cowshed::internal {

constinit thread_local ThreadLane thread_lane;

namespace {

using layout::kMaxTransfers;
using layout::kTransferLanes;

// Threads share the last lane when all others are taken.
constexpr std::uint32_t kSharedLane = kTransferLanes - 1;
static_assert(kTransferLanes == 64, "one bit each");

COWSHED_FORK_STATE std::mutex rows_mutex;
std::uint32_t rows = 1;                                         // under the mutex; 0 is no row
COWSHED_FORK_STATE std::atomic<std::uint64_t> taken_lanes = 0;  // a bit each
std::atomic<std::uint32_t> used_lanes = 0;  // lanes from here on were never taken

// Returns the lane when its thread ends.  The counts stay for the next thread to add to.
struct LaneOwner {
  bool exists = false;  // written so that the thread constructs it
  ~LaneOwner();
};
thread_local LaneOwner lane_owner;
constinit thread_local bool lane_has_gone = false;

// The child starts at 0, with one thread.
void after_fork_in_child() {
  thread_lane = {};
  taken_lanes = 0;
  auto& lanes = layout::transfer_tables().lanes;
  const std::uint32_t used = used_lanes.load();
  // Drops the child's private pages instead of copying them: the file behind them has zeros.
  if (used != 0 && madvise(lanes.data(), used * sizeof lanes[0], MADV_DONTNEED) != 0)
    for (std::uint32_t lane = 0; lane < used; ++lane) lanes[lane].fill({});
  rows_mutex.unlock();
}

// Not initialised as a function's static: a thread that waits for the mutex would hold the static's
// guard, and a child that is forked then would inherit a guard that nobody releases.
layout::TransferTables& tables() {
  static constinit std::atomic<layout::TransferTables*> made = nullptr;
  if (auto* const known = made.load(std::memory_order_acquire)) return *known;
  static constexpr fork_handlers::Handlers kHandlers = {
      [] { rows_mutex.lock(); }, [] { rows_mutex.unlock(); }, &after_fork_in_child};
  fork_handlers::enter(fork_handlers::Rank::transfers, kHandlers);
  layout::TransferTables* fresh = nullptr;
  {
    const std::lock_guard lock(process_tree::mutex());
    layout::create();
    fresh = &layout::transfer_tables();
  }
  layout::TransferTables* first = nullptr;
  return made.compare_exchange_strong(first, fresh) ? *fresh : *first;
}

LaneOwner::~LaneOwner() {
  const auto lane = std::exchange(thread_lane, {});
  lane_has_gone = true;
  if (lane.counts != nullptr && !lane.shared) {
    const auto index = (lane.counts - tables().lanes[0].data()) / kMaxTransfers;
    taken_lanes.fetch_and(~(std::uint64_t{1} << index), std::memory_order_release);
  }
}

std::uint32_t take_lane() noexcept {
  std::uint64_t taken = taken_lanes.load(std::memory_order_relaxed);
  for (;;) {
    const auto lane = static_cast<std::uint32_t>(std::countr_one(taken));
    if (lane >= kSharedLane || lane_has_gone) return kSharedLane;
    if (taken_lanes.compare_exchange_weak(taken, taken | std::uint64_t{1} << lane,
                                          std::memory_order_acquire, std::memory_order_relaxed)) {
      return lane;
    }
  }
}

void show_lane(std::uint32_t lane) noexcept {
  std::uint32_t used = used_lanes.load();
  while (used <= lane && !used_lanes.compare_exchange_weak(used, lane + 1)) {
  }
  layout::show_count(&layout::Header::transfer_lanes, used_lanes.load());
}

std::uint32_t row_of(const layout::Transfer& what) {
  auto& known = tables().transfers;
  const std::lock_guard lock(rows_mutex);
  const auto same = [&](const layout::Transfer& each) {
    return std::memcmp(&each, &what, sizeof what) == 0;
  };
  const auto end = known.begin() + rows;
  const auto found = std::find_if(known.begin() + 1, end, same);
  const auto row = static_cast<std::uint32_t>(found - known.begin());
  if (found != end || rows == kMaxTransfers) return std::min(row, kMaxTransfers - 1);
  if (rows < kMaxTransfers - 1) *found = what;
  else layout::set_text(found->name, "(others)");
  layout::show_count(&layout::Header::transfers, ++rows);
  return row;
}

layout::TransferCount sum_of_lanes(layout::TransferTables& counted, std::uint32_t row) {
  layout::TransferCount sum{};
  const std::uint32_t lanes = used_lanes.load();
  for (std::uint32_t i = 0; i < lanes; ++i) {
    layout::TransferCount& count = counted.lanes[i][row];
    sum.messages += std::atomic_ref(count.messages).load(std::memory_order_relaxed);
    sum.objects += std::atomic_ref(count.objects).load(std::memory_order_relaxed);
    sum.bytes += std::atomic_ref(count.bytes).load(std::memory_order_relaxed);
  }
  return sum;
}

}  // namespace

ThreadLane take_thread_lane() noexcept {
  auto& lanes = tables().lanes;
  lane_owner.exists = true;
  const std::uint32_t lane = take_lane();
  std::atomic_ref(lanes[lane][0].bytes).store(static_cast<std::uint64_t>(getpid()));
  show_lane(lane);
  thread_lane = {lanes[lane].data(), lane == kSharedLane};
  return thread_lane;
}

TransferRow TransferCounter::row(std::string_view type, TransferKind kind) const {
  layout::Transfer what{};
  what.kind = static_cast<std::uint32_t>(kind);
  layout::set_text(what.origin, origin_);
  layout::set_text(what.name, name_);
  layout::set_text(what.type, readable_type(type));
  return TransferRow(row_of(what));
}

std::vector<CountedTransfer> counted_transfers() {
  auto& counted = tables();
  const std::lock_guard lock(rows_mutex);
  std::vector<CountedTransfer> result;
  for (std::uint32_t row = 0; row < rows; ++row)
    if (const layout::TransferCount sum = sum_of_lanes(counted, row); sum.messages != 0)
      result.push_back({counted.transfers[row], sum});
  return result;
}

}  // namespace cowshed::internal
