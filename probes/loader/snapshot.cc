#include <algorithm>
#include <cstring>
#include <iterator>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/probes/loader/snapshot.h>

namespace cowshed {
namespace {

constexpr int kMostAttempts = 50;
constexpr useconds_t kPauseUs = 1000;  // for a task that is preempted inside a program

bool has_ended(const cowshed_process& process) { return (process.flags & COWSHED_ENDED) != 0; }

// Whether no thread of the process ended between the two reads of its record, so that the record
// and the live threads fit together.
bool fits(const ByProcess<cowshed_process>& before, const cowshed_key& key,
          const cowshed_process& after) {
  if (after.flush_end != after.flush_begin) return false;
  const auto found = before.find(key);
  const std::uint64_t flushes = found == before.end() ? 0 : found->second.flush_end;
  return has_ended(after) || flushes == after.flush_end;
}

void set_counts(ProcessCounts& to, const cowshed_process& from, const Programs& programs) {
#define COWSHED_SET_COUNT(name, counter, ...) to.name = from.counter;
  COWSHED_COUNTS(COWSHED_SET_COUNT)
#undef COWSHED_SET_COUNT
  if (!programs.counts_splits()) to.huge_splits.reset();
  if (!programs.counts_collapses()) to.collapsed_pages.reset();
  to.zero_filled_faults = from.counts.faults[COWSHED_ZERO_FILLED];
  to.copied_hugetlb_pages = from.counts.copied_hugetlb_pages;
  to.copied_hugetlb_file_pages = from.counts.copied_hugetlb_file;
  to.filled_hugetlb_pages = from.counts.filled_hugetlb;
  to.write_faults = from.counts.write_faults;
}

std::string text_of(const char (&comm)[COWSHED_COMM_BYTES]) {
  return {comm, strnlen(comm, sizeof comm)};
}

std::uint64_t moved(std::uint64_t ns, std::int64_t by) {
  return ns + static_cast<std::uint64_t>(by);
}

void set_end(ProcessCounts& to, const cowshed_process& from, std::int64_t offset_ns) {
  const int status = static_cast<int>(from.exit_code);
  to.alive = false;
  to.end_ns = moved(from.end_ns, offset_ns);
  to.threads = 0;
  if (from.anonymous_at_end != COWSHED_UNKNOWN) {
    to.anonymous_at_end_bytes = from.anonymous_at_end;
    to.risen_at_end_bytes =
        from.anonymous_at_end - std::min(from.anonymous_at_end, from.least_anonymous_bytes);
  }
  if (from.most_resident_pages != 0)
    to.most_resident_bytes = from.most_resident_pages * COWSHED_PAGE_BYTES;
  if (WIFEXITED(status)) to.exit_status = WEXITSTATUS(status);
  else to.signal = WTERMSIG(status);
  const bool is_by_kernel = from.is_sent_by_kernel != 0;
  if (to.signal != static_cast<int>(from.sent_signal)) return;
  to.is_out_of_memory = is_by_kernel && (from.flags & COWSHED_OUT_OF_MEMORY) != 0;
  if (to.is_out_of_memory || !is_by_kernel)
    to.sender = {static_cast<int>(from.sender), text_of(from.sender_comm)};
}

std::optional<std::uint64_t> copied_by_parent(const cowshed_process& process,
                                              const Programs& programs) {
  if (process.parents_memory == 0) return std::nullopt;
  std::uint64_t copied = process.parents_copied_at_parting;
  if ((process.flags & COWSHED_PARTED) == 0) {
    const cowshed_memory memory = programs.memory(process.parents_memory);
    if (memory.id != process.parents_memory) return std::nullopt;
    copied = memory.copied_pages;
  }
  if (copied < process.parents_copied_at_fork) return std::nullopt;
  return copied - process.parents_copied_at_fork;
}

// A child's copies before its last exec are in copied_before_exec already.
bool is_current(const cowshed_process& process, const ArenaCount& arena) {
  return (process.flags & COWSHED_ROOT) != 0 || arena.memory == process.memory;
}

ProcessCounts describe(const cowshed_key& key, const cowshed_process& process,
                       std::int64_t offset_ns) {
  ProcessCounts counts;
  counts.id = process.id;
  counts.parent_id = process.parent_id;
  counts.pid = static_cast<int>(process.pid);
  counts.ppid = static_cast<int>(process.ppid);
  counts.comm = text_of(process.comm);
  counts.role = (process.flags & COWSHED_ROOT) != 0 ? Role::root : Role::child;
  counts.shares_memory = (process.flags & COWSHED_SHARES_MEMORY) != 0;
  counts.start_ns = moved(key.start_ns, offset_ns);
  counts.threads = process.threads_live;
  counts.threads_total = process.threads_total;
  counts.execs = process.execs;
  counts.image = process.image;
  if (process.first_copy_ns != 0) counts.first_copy_ns = moved(process.first_copy_ns, offset_ns);
  if (process.most_risen_bytes != 0) counts.most_risen_bytes = process.most_risen_bytes;
  if ((process.flags & COWSHED_FORK_SEEN) != 0) {
    counts.shared_at_fork_anon_bytes = process.shared_at_fork_bytes;
    if (process.shared_arena_bytes != COWSHED_UNKNOWN)
      counts.shared_at_fork_arena_bytes = process.shared_arena_bytes;
  }
  if (has_ended(process)) set_end(counts, process, offset_ns);
  return counts;
}

}  // namespace

Expected<void> SnapshotReader::read_records() {
  records_as_of_ = programs_->record_changes();
  const std::uint64_t added = programs_->processes_added();
  if (added == records_added_) {
    records_ = look_up(*programs_, records_);
    return {};
  }
  TRY(records_, read_processes(*programs_));
  records_added_ = added;
  return {};
}

Expected<void> SnapshotReader::read_arena_counts() {
  const std::uint64_t added = programs_->arenas_added();
  if (added == arenas_added_) {
    arenas_ = look_up(*programs_, arenas_);
    return {};
  }
  TRY(arenas_, read_arenas(*programs_));
  arenas_added_ = added;
  return {};
}

// Whether the live threads were all read, each as a whole.  A thread whose exit was missed is
// neither live nor ended from its release until the kernel frees it.
bool SnapshotReader::is_whole(const View& view) const {
  if (has_ended(view.record)) return true;
  return !view.live.is_torn &&
         (!programs_->may_be_preempted() || view.live.threads == view.record.threads_live);
}

Expected<std::optional<ByProcess<SnapshotReader::View>>>
SnapshotReader::views_of_unchanged_records() {
  std::optional<ByProcess<View>> views;
  const auto unchanged = [this] {
    return records_as_of_ && programs_->record_changes() == records_as_of_ &&
           programs_->processes_added() == records_added_;
  };
  if (!unchanged()) return views;
  TRY(auto live, read_live_threads(*programs_));
  if (!unchanged()) return views;
  views.emplace();
  for (const auto& [key, record] : records_) {
    auto threads = live.extract(key);
    const auto added = views->emplace_hint(
        views->end(), key, View{record, threads ? std::move(threads.mapped()) : LiveThreads{}});
    if (!is_whole(added->second)) return std::nullopt;
  }
  return views;
}

Expected<ByProcess<SnapshotReader::View>> SnapshotReader::whole_views() {
  TRY(auto unchanged, views_of_unchanged_records());
  if (unchanged) return std::move(*unchanged);
  ByProcess<View> views;
  bool complete = false;
  for (int attempt = 0; attempt < kMostAttempts && !complete; ++attempt) {
    // A process that is not in `before` yet fits if none of its threads has ended.
    const auto before = look_up(*programs_, records_);
    TRY(auto live, read_live_threads(*programs_));
    TRY_VOID(read_records());
    complete = true;
    unread_ = 0;
    for (const auto& [key, record] : records_) {
      if (views.count(key) != 0) continue;
      View view{record, has_ended(record) ? LiveThreads{} : std::move(live[key])};
      if (fits(before, key, record) && is_whole(view)) {
        views[key] = std::move(view);
      } else {
        complete = false;
        unread_ += std::max<std::uint64_t>(1, record.threads_live > view.live.threads
                                                  ? record.threads_live - view.live.threads
                                                  : 0);
      }
    }
    if (!complete && programs_->may_be_preempted()) usleep(kPauseUs);
  }
  if (!complete) {
    // Threads end faster than we read.  Such a process keeps its last consistent view.
    for (const auto& [key, view] : last_) views.emplace(key, view);
    // On other kernels a process without one is in the next snapshot.
    if (programs_->may_be_preempted())
      for (const auto& [key, record] : records_) views.emplace(key, View{record, {}});
  }
  return views;
}

void SnapshotReader::add_totals(Snapshot& snapshot, const cowshed_counts& counts, bool ended) {
  snapshot.overhead.events += counts.events;
  snapshot.losses.vma_misses += counts.vma_misses;
  if (ended) {
    ended_events_ += counts.events;
    ended_vma_misses_ += counts.vma_misses;
  }
}

Expected<void> SnapshotReader::read(Snapshot& snapshot) {
  unread_ = 0;
  TRY(auto views, whole_views());
  if (programs_->may_be_preempted()) snapshot.losses.missed += unread_;
  TRY_VOID(read_arena_counts());
  snapshot.overhead.events = ended_events_;
  snapshot.losses.vma_misses = ended_vma_misses_;
  snapshot.processes.reserve(views.size());
  for (auto entry = views.begin(); entry != views.end();) {
    auto& [key, view] = *entry;
    const bool ended = has_ended(view.record);
    if (ended) view.record = take_process(*programs_, key, view.record);
    ProcessCounts counts = describe(key, view.record, offset_ns_);
    counts.parent_copied_pages = copied_by_parent(view.record, *programs_);
    cowshed_process sum = view.record;
    add(sum.counts, view.live.counts);
    set_counts(counts, sum, *programs_);
    add_totals(snapshot, sum.counts, ended);
    counts.pending_faults = view.live.pending;
    if (programs_->counts_forks())
      counts.fork_costs = (view.record.flags & COWSHED_FORKS) != 0
                              ? fork_costs_of(*programs_, key, ended)
                              : ForkCosts();
    if (!view.live.comm.empty()) counts.comm = view.live.comm;
    const auto found = arenas_.find(key);
    if (found != arenas_.end())
      std::ranges::copy_if(found->second, std::back_inserter(counts.arenas),
                           [&](const ArenaCount& arena) { return is_current(view.record, arena); });
    snapshot.processes.push_back(std::move(counts));
    if (!ended) {
      ++entry;
      continue;
    }
    if (found != arenas_.end()) forget_arenas(*programs_, key, found->second);
    records_.erase(key);
    entry = views.erase(entry);
  }
  last_ = std::move(views);
  std::ranges::sort(snapshot.processes, {}, &ProcessCounts::id);
  return {};
}

}  // namespace cowshed
