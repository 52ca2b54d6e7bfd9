#pragma once

#include <optional>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/loader/bpf_programs.h>
#include <cowshed/probes/loader/clock_offset.h>
#include <cowshed/probes/loader/kernel_records.h>

namespace cowshed {

// Adds the counts of ended threads, from the maps, to those of live threads, from an iterator.
// A thread that ends between the two reads would be missed or counted twice.  The flush numbers of
// its process, read before and after, show that, and it reads both again.  While no record changes,
// it reads only the live threads.
class SnapshotReader {
 public:
  explicit SnapshotReader(const Programs& programs) : programs_(&programs) {}

  // Fills the processes, and the sums over all processes ever tracked.  Removes ended processes
  // from the kernel's maps.  Errors: system_call; then it removes nothing.
  Expected<void> read(Snapshot& snapshot);

 private:
  struct View {
    cowshed_process record = {};
    LiveThreads live;
  };

  Expected<void> read_records();
  Expected<void> read_arena_counts();
  Expected<ByProcess<View>> whole_views();
  Expected<std::optional<ByProcess<View>>> views_of_unchanged_records();
  bool is_whole(const View& view) const;
  void add_totals(Snapshot& snapshot, const cowshed_counts& counts, bool ended);

  const Programs* programs_;
  std::int64_t offset_ns_ = monotonic_offset_ns();
  ByProcess<View> last_;  // of the live processes
  // The content of the maps, and the number of entries ever added to them at that time.
  ByProcess<cowshed_process> records_;
  std::uint64_t records_added_ = 0;
  std::optional<std::uint64_t> records_as_of_;  // number of changes then; nullopt: unknown
  ByProcess<std::vector<ArenaCount>> arenas_;
  std::uint64_t arenas_added_ = 0;
  std::uint64_t unread_ = 0;  // threads that are not in the last snapshot as they are
  std::uint64_t ended_events_ = 0;
  std::uint64_t ended_vma_misses_ = 0;
};

}  // namespace cowshed
