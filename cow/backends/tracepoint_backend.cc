// Turns the counts of the eBPF probes into a measurement, and adds what /proc knows: arenas, copied
// objects, and what each process shares now.

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/object_copies.h>
#include <cowshed/cow/backends/attach_roots.h>
#include <cowshed/cow/backends/memory_sample.h>
#include <cowshed/cow/backends/process_rollup.h>
#include <cowshed/cow/backends/tracepoint_backend.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/cow/proc/process_pages.h>

namespace cowshed::cow {
namespace {

// Scans of one sample() together.  The process that has waited longest is first the next time.
constexpr std::uint64_t kScansAtOnceNs = 2'500'000;
// Between scans without a new count: of a process that counts what it sends, and of others.
constexpr std::uint64_t kUnchangedSenderNs = 1'000'000'000;
constexpr std::uint64_t kUnchangedNs = 10'000'000'000;

constexpr std::chrono::milliseconds kShortestInterval{10};
constexpr std::chrono::milliseconds kLongestPending{40};
constexpr std::size_t kFewSamples = 32;  // the kernel's buffer has room for hundreds
constexpr std::chrono::milliseconds kLongestInterval{1000};
// Snapshots take at most a twentieth of the time, and scans a 200th.
constexpr std::uint64_t kCostShare = 20;
constexpr std::uint64_t kScansShare = 200;
// In the long run each takes a 500th of a CPU.  With TreeMemoryMeter's shares this is 0.8 %; the
// rest of cowtop takes less than 0.2.
constexpr std::uint64_t kLongRunShare = 500;
constexpr std::uint64_t kMostSavedNs = 5'000'000;
// A command may be short, so its first seconds may take more.
constexpr std::uint64_t kFirstOfCommandNs = 30'000'000;

// Some 140 MB, if copies are sampled faster than they are attributed.
constexpr std::size_t kMostTakenMeanwhile = 16'384;

void copy_counts(const ProcessCounts& counts, ProcessCopies& copies) {
  copies.pid = counts.pid;
  copies.ppid = counts.ppid;
  copies.comm = counts.comm;
  copies.role = counts.role;
  copies.alive = counts.alive;
  copies.start_ns = counts.start_ns;
  copies.end_ns = counts.end_ns;
  copies.exit_status = counts.exit_status;
  copies.signal = counts.signal;
  copies.shares_memory = counts.shares_memory && counts.execs == 0;
  copies.execs = counts.execs;
  copies.most_risen_bytes = counts.most_risen_bytes;
  static_cast<Counts&>(copies) = counts;
  *copies.copied_anon_pages += counts.copied_hugetlb_pages;
  if (copies.role == Role::child && !counts.shares_memory)
    copies.parent_copied_pages = counts.parent_copied_pages;
}

// Counts only grow.  What an ended parent froze has none.
void set_sent(ProcessCopies& copies, std::vector<SentObjects>& sent) {
  if (!sent.empty() || !copies.transfers) copies.transfers = std::move(sent);
}

bool is_gone(const ProcessCopies& process) {
  return process.pid != 0 && ::kill(process.pid, 0) != 0 && errno == ESRCH;
}

// The pages of arenas that the process has copied, or inherited as copies.
PageRanges private_arena_pages(const ProcFiles& proc, pid_t pid) {
  PageRanges result;
  const auto mappings = proc.maps(pid);
  auto pages = ProcessPages::open(proc, pid);
  if (!mappings || !pages) return result;
  for (const FrozenArena& arena : frozen_arenas(proc, pid, *mappings)) {
    const auto resident = pages->anonymous_pages(*arena.mapping);
    if (!resident) continue;
    for (const PageRange& range : resident->ranges()) result.append(range);
  }
  return result;
}

}  // namespace

TracepointBackend::TracepointBackend(Probe probe, const SamplingOptions& sampling, ProcFiles proc)
    : probe_(std::move(probe)),
      proc_(std::move(proc)),
      scans_(kScansShare),
      scan_budget_(kLongRunShare, kMostSavedNs, 1),
      snapshot_budget_(kLongRunShare, kMostSavedNs, 1) {
  if (sampling.period == 0) return;
  sampling_.emplace().period = sampling.period;
  profiler_ = std::make_unique<CopyProfiler>(
      proc_, [this](std::uint64_t image, const PythonLayout& layout) {
        (void)probe_.add_interpreter(image, layout);  // else samples have no frames of it
      });
}

Expected<std::unique_ptr<Backend>> TracepointBackend::open(const SamplingOptions& sampling,
                                                           ProcFiles proc) {
  TRY(auto probe, Probe::load(sampling));
  return std::unique_ptr<Backend>(
      new TracepointBackend(std::move(probe), sampling, std::move(proc)));
}

Expected<void> TracepointBackend::track_command(pid_t child) {
  scan_budget_ = snapshot_budget_ =
      internal::TokenBucket(kLongRunShare, kMostSavedNs, kFirstOfCommandNs);
  memory_.expect_command();
  return probe_.track_command(child);
}

Expected<Attached> TracepointBackend::attach(const std::vector<pid_t>& roots) {
  Attached result;
  const auto attach = [&](const Roots& found) -> Expected<Refused> {
    // An orphan that a measured process took over is not tracked yet.
    std::vector<pid_t> trees = found.measured;
    trees.insert(trees.end(), found.roots.begin(), found.roots.end());
    TRY(const auto attached, probe_.attach_trees(trees));
    result.processes += attached.processes;
    const std::vector<pid_t>& missing = attached.not_found;
    Refused refused;
    for (const pid_t root : found.roots) {
      if (std::ranges::find(missing, root) == missing.end()) {
        alive_.insert(root);
        continue;
      }
      // The kernel may hide it from the probe as it hides its memory from us.
      const auto stat = stat_of_readable(proc_, root);
      refused.emplace_back(root, stat ? no_memory_error(root, *stat) : stat.error());
    }
    return refused;
  };
  TRY(result.refused,
      attach_roots(roots, proc_, [this](pid_t pid) { return measures(pid); }, attach));
  return result;
}

// If the kernel had no memory to track a thread, and that thread ends last, no event ends the
// process.  So a process that was gone before the last snapshot has ended, whatever that says.  One
// that went later may have children that no snapshot shows yet.
bool TracepointBackend::any_alive() const {
  return std::ranges::any_of(processes_, [](const auto& entry) {
    const Process& process = entry.second;
    return process.copies.alive && !(process.live->was_gone && is_gone(process.copies));
  });
}

void TracepointBackend::note_who_is_gone() {
  const auto is_there = [](const auto& entry) {
    return entry.second.copies.alive && !is_gone(entry.second.copies);
  };
  if (std::ranges::any_of(processes_, is_there)) return;  // the usual case
  for (auto& [id, process] : processes_)
    if (process.copies.alive) process.live->was_gone = true;
}

std::chrono::milliseconds TracepointBackend::interval() const {
  const auto costing = [this](std::uint64_t share) {
    return std::chrono::milliseconds(usual_snapshot_cost_ns_ * share / 1'000'000);
  };
  const auto shortest = std::max(kShortestInterval, costing(kCostShare));
  if (snapshot_budget_.is_left(monotonic_ns())) return shortest;
  return std::max(shortest, std::min(kLongestInterval, costing(kLongRunShare)));
}

std::optional<std::chrono::milliseconds> TracepointBackend::pending_interval() const {
  return is_pending_ ? std::optional(pending_wait_) : std::nullopt;
}

// A process with samples that is in no snapshot yet may have ended by the next one.  So the next
// snapshot is due now, unless the budget is spent.
bool TracepointBackend::take_pending() {
  if (!profiler_) return false;
  taken_meanwhile_ = 0;
  if (!take_samples()) return true;  // sample() returns the error
  const std::size_t taken = taken_meanwhile_;
  profiler_->attribute_known([this] { take_samples_meanwhile(); });
  // Each time costs us more than a sample does, but short-lived processes do not wait for us.
  const bool is_pressing = taken > kFewSamples || profiler_->is_waiting();
  pending_wait_ = is_pressing
                      ? kShortestInterval
                      : std::min(pending_wait_ + std::chrono::milliseconds(1), kLongestPending);
  is_pending_ = taken > 0;
  return profiler_->is_waiting() && snapshot_budget_.is_left(monotonic_ns());
}

Expected<void> TracepointBackend::take_samples() {
  if (!profiler_) return {};
  TRY(auto samples, probe_.take_samples());
  taken_meanwhile_ += samples.size();
  for (const CopySample& sample : samples)
    sampling_->longest_period = std::max(sampling_->longest_period, sample.copies);
  profiler_->add(std::move(samples));
  return {};
}

// Keeps the kernel's buffer from overflowing during a long scan or while stacks are unwound.
void TracepointBackend::take_samples_meanwhile() {
  if (taken_meanwhile_ >= kMostTakenMeanwhile) return;
  (void)take_samples();  // the next sample() returns the error
}

Expected<void> TracepointBackend::sample() {
  TRY_VOID(take_samples());
  taken_meanwhile_ = 0;
  ++samples_;
  note_who_is_gone();
  std::uint64_t begin = thread_cpu_ns();
  TRY(const auto snapshot, probe_.snapshot());
  if (profiler_) {
    // Attribution is no part of the cost: a longer interval would overflow the kernel's buffer.
    const std::uint64_t before = thread_cpu_ns();
    profiler_->attribute(snapshot.processes, [this] { take_samples_meanwhile(); });
    begin += thread_cpu_ns() - before;
  }
  add_snapshot(snapshot);
  // The lesser of the last two, because one snapshot may cost much more: the kernel patches itself
  // to time the programs.
  const std::uint64_t cost = thread_cpu_ns() - begin;
  snapshot_budget_.spend(monotonic_ns(), cost);
  usual_snapshot_cost_ns_ = std::min(cost, std::exchange(last_snapshot_cost_ns_, cost));
  scan_memory(snapshot);
  std::vector<TreeProcess> tree;
  for (auto& [id, process] : processes_) {
    ProcessCopies& copies = process.copies;
    if (!copies.shares_memory) {
      tree.push_back(
          {id, copies.pid, copies.alive, copies.all_copied_pages().value_or(0) * kPageSize,
           copies.zero_filled_pages.value_or(0) * kPageSize, false, &copies.peak, &copies.pss});
    }
  }
  memory_.sample(proc_, tree);
  forget_the_ended(snapshot);
  return {};
}

void TracepointBackend::add_snapshot(const Snapshot& snapshot) {
  alive_.clear();
  for (const ProcessCounts& counts : snapshot.processes) {
    Process& process = processes_[counts.id];
    if (process.live == nullptr || process.live->counts != counts) {
      update(process, counts);
      if (process.live->sends) read_sent(process);
    }
    read_objects(process);
    if (counts.alive) alive_.insert(alive_.end(), counts.pid);
  }
  lost_ = snapshot.losses.lost();
  unsure_faults_ = snapshot.losses.vma_misses;
  overhead_ = {snapshot.overhead.events, snapshot.overhead.ns_per_event};
  if (const auto counts = probe_.sample_counts(); counts && sampling_) {
    const std::uint64_t dropped = profiler_->dropped();
    sampling_->emitted = counts->emitted;
    sampling_->received = counts->received - dropped;
    sampling_->lost = counts->lost + dropped;
  }
}

void TracepointBackend::update(Process& process, const ProcessCounts& counts) {
  const bool is_new = process.live == nullptr;
  if (is_new || process.copies.execs != counts.execs) read_cgroup(process, counts);
  if (is_new) process.live = std::make_unique<Live>();
  else if (process.copies.execs != counts.execs) process.live->arena_names.clear();
  copy_counts(counts, process.copies);
  process.live->counts = counts;
  process.live->has_changed = true;
  if (is_new) inherit(process, counts);
  count_arenas(process);
}

// Container runtimes move a process before it executes its program.
void TracepointBackend::read_cgroup(Process& process, const ProcessCounts& counts) {
  std::string cgroup = counts.alive ? proc_.cgroup(counts.pid) : std::string();
  const auto parent = processes_.find(counts.parent_id);
  if (cgroup.empty() && process.copies.cgroup.empty() && parent != processes_.end())
    cgroup = parent->second.copies.cgroup;
  if (!cgroup.empty()) process.copies.cgroup = std::move(cgroup);
}

void TracepointBackend::inherit(Process& child, const ProcessCounts& counts) {
  const auto found = processes_.find(counts.parent_id);
  Process* const parent = found != processes_.end() ? &found->second : nullptr;
  if (parent != nullptr) {
    const PageRanges& pages = pages_for_children(*parent);
    if (counts.execs == 0) {
      child.live->sends = parent->live && parent->live->sends;
      if (parent->live) child.live->arena_names = parent->live->arena_names;
      for (const ArenaCopies& arena : parent->copies.arenas)
        child.copies.arenas.push_back({arena.name, arena.bytes, 0});
      if (counts.alive) {
        child.live->parent_id = counts.parent_id;
        child.live->inherited = pages;
      }
    }
  } else if (counts.alive) {
    read_arenas(child);
  }
  // What an ended parent froze is not counted any more.
  const bool is_orphan = parent == nullptr || !parent->copies.alive;
  if (is_orphan && counts.alive && counts.execs == 0 && inherited_freeze(proc_, counts.pid))
    child.copies.transfers = {{"freeze", "", "Python objects", "inherited", 0, 0, 0}};
  if (!counts.shared_at_fork_anon_bytes) return;
  std::optional<std::uint64_t> arenas = counts.shared_at_fork_arena_bytes;
  if (!arenas && counts.alive && counts.execs == 0) arenas = read_arenas(child);
  if (!arenas) {
    child.copies.not_measured = fmt::format(
        "PID {}: the frozen arenas that it got at its fork could not be found", counts.pid);
    return;
  }
  // For arenas that the parent does not publish: what it has now, if it is still there.
  std::uint64_t of_parent = 0;
  if (parent != nullptr)
    for (const ArenaCopies& arena : parent->copies.arenas) of_parent += arena.bytes.value_or(0);
  arenas = std::max(*arenas, of_parent);
  child.copies.shared_at_fork_bytes = *counts.shared_at_fork_anon_bytes + *arenas;
}

// Reads them once in a sample(): with 1,000 new children a second, a walk through the parent's maps
// for each of them would take a tenth of a CPU.
const PageRanges& TracepointBackend::pages_for_children(Process& parent) {
  static const PageRanges nothing;
  if (!parent.copies.alive || !parent.live) return nothing;
  Live& live = *parent.live;
  if (std::exchange(live.for_children_read, samples_) == samples_) return live.for_children;
  read_arenas(parent);
  read_sent(parent);
  live.for_children =
      parent.copies.arenas.empty() ? nothing : private_arena_pages(proc_, parent.copies.pid);
  return live.for_children;
}

// Returns the bytes of its frozen arenas; nullopt: its mappings cannot be read.
std::optional<std::uint64_t> TracepointBackend::read_arenas(Process& process) {
  const auto mappings = proc_.maps(process.copies.pid);
  if (!mappings || mappings->empty()) return std::nullopt;
  std::uint64_t sum = 0;
  std::map<std::string, std::uint64_t> bytes;
  for (const FrozenArena& arena : frozen_arenas(proc_, process.copies.pid, *mappings)) {
    bytes[arena.name] += arena.mapping->bytes();
    sum += arena.mapping->bytes();
    process.live->arena_names[arena.mapping->begin] = arena.name;
  }
  for (const auto& [name, size] : bytes) arena_named(process.copies.arenas, name).bytes = size;
  return sum;
}

void TracepointBackend::count_arenas(Process& process) {
  const std::vector<ArenaCount>& arenas = process.live->counts.arenas;
  auto& names = process.live->arena_names;
  const auto is_new = [&](const ArenaCount& counted) {
    return counted.address != 0 && !names.contains(counted.address);
  };
  if (process.copies.alive && std::ranges::any_of(arenas, is_new)) {
    read_arenas(process);
    // A mapping without a name is one of another file, for as long as it exists.
    for (const ArenaCount& counted : arenas)
      if (counted.address != 0) names.try_emplace(counted.address);
  }
  std::map<std::string, std::uint64_t> pages;  // of all of an arena's generations
  for (const ArenaCount& counted : arenas) {
    const std::string& name = counted.address == 0 ? counted.name : names[counted.address];
    if (!name.empty()) pages[name] += counted.copied_pages;
  }
  for (const auto& [name, count] : pages)
    arena_named(process.copies.arenas, name).copied_pages = count;
}

void TracepointBackend::read_objects(Process& process) {
  ProcessCopies& copies = process.copies;
  std::uint64_t pages = 0;
  for (const ArenaCopies& arena : copies.arenas) pages += arena.copied_pages;
  if (pages == 0) {
    copies.objects.emplace();
    return;
  }
  if (copies.objects && copies.objects->empty()) copies.objects.reset();
  // A walk through /proc pays only after a new copy.
  if (!copies.alive || copies.shares_memory || process.live->object_pages == pages) return;
  const auto mappings = proc_.maps(copies.pid);
  if (!mappings) return;
  const auto arenas = copied_arenas(process, *mappings);
  if (!arenas || arenas->empty()) return;
  auto objects = copies_by_object(proc_, copies.pid, *mappings, *arenas);
  if (!objects) return;
  copies.objects = std::move(objects);
  process.live->object_pages = pages;
}

// Does not wait for a scan of its memory, before which the process may end.
void TracepointBackend::read_sent(Process& process) {
  if (!process.copies.alive) return;
  auto sent = read_sent_objects(proc_, process.copies.pid);
  if (!sent) return;
  set_sent(process.copies, *sent);
  process.live->sends = true;
}

// nullopt: its memory cannot be read.
std::optional<std::vector<CopiedArena>> TracepointBackend::copied_arenas(
    const Process& process, const std::vector<Mapping>& mappings) {
  auto pages = ProcessPages::open(proc_, process.copies.pid);
  if (!pages) return std::nullopt;
  const PageRanges& inherited = process.live->inherited;
  PageRanges with_parent;
  std::optional<ProcessPages> parent_pages;
  const auto parent = processes_.find(process.live->parent_id);
  if (!inherited.empty() && parent != processes_.end() && parent->second.copies.alive) {
    const pid_t pid = parent->second.copies.pid;
    with_parent = private_arena_pages(proc_, pid);
    if (auto opened = ProcessPages::open(proc_, pid)) parent_pages = std::move(*opened);
  }
  std::vector<CopiedArena> arenas;
  for (const FrozenArena& arena : frozen_arenas(proc_, process.copies.pid, mappings)) {
    const auto all = pages->anonymous_pages_by_owner(*arena.mapping);
    if (!all) return std::nullopt;
    auto copied = pages->copied_pages(*arena.mapping, *all, inherited, with_parent,
                                      parent_pages ? &*parent_pages : nullptr);
    if (!copied || pages->is_gone()) return std::nullopt;
    if (!copied->empty()) arenas.push_back({arena.mapping, std::move(*copied)});
  }
  return arenas;
}

void TracepointBackend::scan_memory(const Snapshot& snapshot) {
  const std::uint64_t now = monotonic_ns();
  if (!scans_.is_due(now) || !scan_budget_.is_left(now)) return;
  const std::vector<Process*> due = due_for_scan(snapshot, now);
  const std::uint64_t begin = thread_cpu_ns();
  std::uint64_t took = 0;
  for (Process* process : due) {
    scan(process->copies);
    const std::uint64_t spent = thread_cpu_ns() - begin;
    process->live->last_scan_ns = monotonic_ns();
    process->live->scans.ran(process->live->last_scan_ns, spent - took);
    process->live->has_changed = false;
    took = spent;
    if (took >= kScansAtOnceNs) break;
  }
  if (took == 0) return;
  const std::uint64_t end = monotonic_ns();
  scans_.ran(end, took);
  scan_budget_.spend(end, took);
}

// In order of the last scan.  A process without a new count is scanned now and then, too: other
// processes may have changed with whom it shares its pages.
std::vector<TracepointBackend::Process*> TracepointBackend::due_for_scan(const Snapshot& snapshot,
                                                                         std::uint64_t now) {
  std::vector<Process*> due;
  for (const ProcessCounts& counts : snapshot.processes) {
    Process& process = processes_.at(counts.id);
    if (!counts.alive || process.copies.shares_memory || !process.live->scans.is_due(now)) continue;
    const std::uint64_t unchanged = process.copies.transfers ? kUnchangedSenderNs : kUnchangedNs;
    if (process.live->has_changed || now - process.live->last_scan_ns >= unchanged)
      due.push_back(&process);
  }
  std::ranges::stable_sort(due, {}, [](const Process* each) { return each->live->last_scan_ns; });
  return due;
}

void TracepointBackend::scan(ProcessCopies& copies) {
  const auto mappings = proc_.maps(copies.pid);
  const auto memory = mappings ? sample_memory(proc_, copies.pid, *mappings) : std::nullopt;
  if (!memory) {
    // With CAP_PERFMON some kernels permit the mappings but not the page map.
    const auto pages = ProcessPages::open(proc_, copies.pid);
    if (!pages && pages.error().code == ErrorCode::permission_denied) copies.unreadable = true;
  }
  if (!mappings) return;
  if (auto sent = read_sent_objects(proc_, copies.pid, *mappings)) set_sent(copies, *sent);
  if (memory) {
    copies.memory = memory;
    copies.memory->touched_pages = copies.touched_pages();
    copies.unreadable = false;
  }
  take_samples_meanwhile();
}

// A child that is first seen now may inherit from a parent that has ended.  So an ended process is
// kept for one more sample().
void TracepointBackend::forget_the_ended(const Snapshot& snapshot) {
  for (const std::uint64_t id : ended_)
    if (const auto found = processes_.find(id); found != processes_.end())
      found->second.live.reset();
  ended_.clear();
  for (const ProcessCounts& counts : snapshot.processes)
    if (!counts.alive) ended_.push_back(counts.id);
}

// Of the processes whose new memory is sampled.
CopiedPages TracepointBackend::new_pages() const {
  CopiedPages pages;
  for (const auto& [id, process] : processes_) {
    const ProcessCopies& copies = process.copies;
    if (copies.role == Role::child && goes_on(copies) && !copies.shares_memory)
      pages[id] = copies.touched_pages();
  }
  return pages;
}

Measurement TracepointBackend::measurement(const CodeOf& code) const {
  Measurement result = begun_measurement();
  result.lost_events = lost_;
  result.unsure_faults = unsure_faults_;
  result.overhead = overhead_;
  result.memory = memory_.memory();
  result.sampling = sampling_;
  CopiedPages pages;
  if (profiler_)
    for (const auto& [id, process] : processes_)
      pages[id] = process.copies.all_copied_pages().value_or(0);
  if (profiler_ && code.is_all()) {
    result.sampled = profiler_->of_all(pages);
    result.new_memory = profiler_->new_memory(new_pages());
  }
  result.processes.reserve(processes_.size());
  for (const auto& [id, process] : processes_) {
    ProcessCopies& copies = result.processes.emplace_back(process.copies);
    if (!profiler_ || !code.includes(copies)) continue;
    auto profile = profiler_->of(id, pages);
    copies.sampled = std::move(profile.sampled);
    copies.patterns = std::move(profile.patterns);
  }
  if (profiler_) result.sampling->unread = profiler_->unread();
  return result;
}

void TracepointBackend::merge_ended(std::size_t most) {
  std::vector<std::uint64_t> ids;
  std::vector<EndedProcess> processes;
  for (auto& [id, process] : processes_) {
    ids.push_back(id);
    processes.push_back({&process.copies, process.live == nullptr});
  }
  cow::merge_ended(processes, most, [&](std::size_t i, std::size_t into) {
    if (profiler_) profiler_->merge(ids[i], ids[into]);
    processes_.erase(ids[i]);
  });
}

std::vector<ProcessCopies> TracepointBackend::take_ended() {
  std::vector<ProcessCopies> result;
  if (profiler_) return result;
  for (auto& [id, process] : processes_)
    if (!process.copies.alive) result.push_back(std::move(process.copies));
  std::erase_if(processes_, [](const auto& entry) { return !entry.second.copies.alive; });
  return result;
}

}  // namespace cowshed::cow
