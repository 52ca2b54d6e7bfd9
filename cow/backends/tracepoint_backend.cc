// Turns the counts of the eBPF probes into a measurement, and adds what /proc knows: arenas, copied
// objects, and what each process shares now.

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/pagemap.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/backends/attach_roots.h>
#include <cowshed/cow/backends/process_rollup.h>
#include <cowshed/cow/backends/tracepoint_backend.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/cow/proc/process_pages.h>

namespace cowshed::cow {
namespace {

// Scans of one sample() together.  The process that has waited longest is first the next time.
constexpr std::uint64_t kScansAtOnceNs = 2'500'000;
constexpr std::uint64_t kFirstScansAtOnceNs = 50'000'000;
constexpr std::uint64_t kWantedScansAtOnceNs = 200'000'000;
constexpr std::uint64_t kRestNs = 300'000'000;  // a process that changes counts in each snapshot

constexpr std::chrono::milliseconds kShortestInterval{10};
constexpr std::chrono::milliseconds kLongestPending{40};
constexpr std::size_t kFewSamples = 32;  // the kernel's buffer has room for hundreds
constexpr std::chrono::milliseconds kLongestInterval{1000};
// Snapshots take at most a twentieth of the time, and scans a 200th, of a new command a twentieth.
constexpr std::uint64_t kCostShare = 20;
constexpr std::uint64_t kScansShare = 200;
// In the long run each takes so much of a CPU.  With the shares of TreeMemoryMeter and AlikeMeter
// this is 0.75 %.
constexpr std::uint64_t kLongRunShare = 500;
constexpr std::uint64_t kLongRunScansShare = 800;
constexpr std::uint64_t kMostSavedNs = 5'000'000;
// A command may be short, so its first seconds may take more.
constexpr std::uint64_t kFirstOfCommandNs = 50'000'000;

// Some 140 MB, if copies are sampled faster than they are attributed.
constexpr std::size_t kMostTakenMeanwhile = 16'384;

// Of a process in which free memory is looked for.
constexpr std::uint64_t kLeastHeap = 8 << 20;

bool is_gone(const ProcessCopies& process) {
  return process.pid != 0 && ::kill(process.pid, 0) != 0 && errno == ESRCH;
}

}  // namespace

TracepointBackend::TracepointBackend(Probe probe, const SamplingOptions& sampling, ProcFiles proc)
    : probe_(std::move(probe)),
      proc_(std::move(proc)),
      scans_(kScansShare),
      scan_budget_(kLongRunScansShare, kMostSavedNs, 1),
      snapshot_budget_(kLongRunShare, kMostSavedNs, 1),
      alike_(proc_) {
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
  scan_budget_ = internal::TokenBucket(kLongRunScansShare, kMostSavedNs, kFirstOfCommandNs);
  snapshot_budget_ = internal::TokenBucket(kLongRunShare, kMostSavedNs, kFirstOfCommandNs);
  scans_ = internal::DutyCycle(kCostShare);
  rest_credit_ns_ = kFirstOfCommandNs;
  memory_.begin();
  is_command_ = true;
  return probe_.track_command(child);
}

Expected<Attached> TracepointBackend::attach(const std::vector<pid_t>& roots) {
  if (processes_.empty()) memory_.begin();
  is_command_ = false;
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

TreeProcess TracepointBackend::in_tree(std::uint64_t id, TracedProcess& process) const {
  ProcessCopies& copies = process.copies;
  const std::uint64_t first_writes = first_write_bytes(copies);
  TreeProcess result{.id = id,
                     .pid = copies.pid,
                     .alive = copies.alive,
                     .filled_bytes = copies.touched_pages() * kPageSize + first_writes +
                                     copies.shared_memory_pages.value_or(0) * kPageSize,
                     .peak = &copies.peak,
                     .pss = &copies.pss,
                     .start_ns = copies.start_ns,
                     .end_ns = copies.end_ns.value_or(0),
                     .forked_ns = copies.start_ns,
                     .most_resident_bytes = copies.most_resident_bytes.value_or(0),
                     .risen_bytes = copies.most_risen_bytes.value_or(0),
                     .execs = copies.execs};
  const std::uint64_t copied = copies.all_copied_pages().value_or(0) * kPageSize;
  result.copied_bytes = copied - std::min(copied, first_writes);
  // What its parent held when it forked, which is all of the tree if we started that.
  if (is_command_ && copies.processes == 1)
    result.least_peak_bytes = copies.shared_at_fork_bytes.value_or(0);
  if (process.live) {
    const ProcessCounts& counts = process.live->counts;
    result.start_ns = counts.first_copy_ns.value_or(copies.start_ns);
    result.got_bytes = counts.shared_at_fork_anon_bytes;
    result.parent_id = counts.parent_id;
    result.got_at_fork_bytes = counts.shared_at_fork_anon_bytes.value_or(0);
    result.filled_bytes -= counts.filled_hugetlb_pages * kPageSize;  // no part of PSS
  }
  if (copies.execs > 0) result.got_bytes = 0;
  return result;
}

std::vector<AlikeProcess> TracepointBackend::running() {
  std::vector<AlikeProcess> result;
  for (auto& [id, process] : processes_) {
    ProcessCopies& copies = process.copies;
    if (!copies.alive || copies.shares_memory) continue;
    const ProcessCounts& counts = process.live->counts;
    std::optional<std::uint64_t> copied;
    if (counts.shared_at_fork_anon_bytes && counts.parent_copied_pages)
      copied = (counts.copied_pages() + *counts.parent_copied_pages) * kPageSize;
    result.push_back({.id = id,
                      .parent_id = goes_on(copies) ? counts.parent_id : 0,
                      .pid = copies.pid,
                      .changes = copies.touched_pages() + copies.execs,
                      .copied_bytes = copied,
                      .alike = &copies.alike});
  }
  return result;
}

// If the kernel had no memory to track a thread, and that thread ends last, no event ends the
// process.  So a process that was gone before the last snapshot has ended, whatever that says.  One
// that went later may have children that no snapshot shows yet.
bool TracepointBackend::any_alive() const {
  return std::ranges::any_of(processes_, [](const auto& entry) {
    const TracedProcess& process = entry.second;
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
  scan_memory();
  std::vector<TreeProcess> tree;
  for (auto& [id, process] : processes_)
    if (!process.copies.shares_memory) tree.push_back(in_tree(id, process));
  memory_.sample(proc_, tree);
  alike_.sample(running(), [this] { take_samples_meanwhile(); });
  forget_the_ended();
  return {};
}

void TracepointBackend::add_snapshot(const Snapshot& snapshot) {
  alive_.clear();
  for (const ProcessCounts& counts : snapshot.processes) {
    const auto parent = processes_.find(counts.parent_id);
    TracedProcess* const forked_by = parent == processes_.end() ? nullptr : &parent->second;
    TracedProcess& process = processes_[counts.id];
    process.update(counts, forked_by, proc_, samples_);
    process.read_objects(forked_by, proc_);
    if (forked_by != nullptr) process.look_for_lock(*forked_by, proc_);
    if (counts.alive) alive_.insert(alive_.end(), counts.pid);
    if (counts.alive) cgroups_.note(process.copies.cgroup);
  }
  if (std::ranges::any_of(snapshot.processes, &ProcessCounts::is_out_of_memory)) explain_kills();
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

// Of those that have ended in this snapshot: whose limit was reached, and who held the memory.
void TracepointBackend::explain_kills() {
  std::vector<OutOfMemory*> killed;
  std::vector<const ProcessCopies*> all;
  for (auto& [id, process] : processes_) {
    ProcessCopies& copies = process.copies;
    if (!process.live || process.live->had_ended || copies.shares_memory) continue;
    all.push_back(&copies);
    if (copies.alive || !copies.out_of_memory) continue;
    *copies.out_of_memory = cgroups_.look(copies.cgroup, samples_).why;
    copies.out_of_memory->is_sure = true;
    killed.push_back(&*copies.out_of_memory);
  }
  for (OutOfMemory* each : killed) each->holders = largest_holders(all);
}

// Each process that ran before is scanned once beyond the budget: all its figures need that.  So is
// each at the end of a measurement, as far as time permits: those that have changed first.
void TracepointBackend::scan_memory() {
  const std::uint64_t now = monotonic_ns();
  const bool are_wanted = std::exchange(are_scans_wanted_, false);
  const bool may_spend = scans_.is_due(now) && scan_budget_.is_left(now);
  // What has changed and is at rest now may stay as it is.
  const auto is_quiet = [now](const TracedProcess& process) {
    return process.live->changed_ns + kRestNs <= now;
  };
  const auto is_at_rest = [&](const TracedProcess& process) {
    return process.live->has_changed && is_quiet(process);
  };
  const auto is_first = [](const TracedProcess& process) {
    return process.live->last_scan_ns == 0 && ran_before(process.copies);
  };
  const auto has_credit = [&](const TracedProcess& process) {
    return !may_spend && scans_.is_due(now) && rest_credit_ns_ > 0 && is_at_rest(process);
  };
  std::vector<TracedProcess*> due;
  for (auto& [id, process] : processes_)
    if (process.copies.alive && !process.copies.shares_memory &&
        (are_wanted ||
         (process.is_due_for_scan(now) && (may_spend || is_first(process) || has_credit(process)))))
      due.push_back(&process);
  std::ranges::stable_sort(due, {}, [&](const auto* each) {
    const bool is_later = are_wanted ? !each->live->has_changed : !is_at_rest(*each);
    return std::pair(is_later, each->live->last_scan_ns);
  });
  const std::uint64_t begin = thread_cpu_ns();
  std::uint64_t took = 0;
  std::uint64_t spent = 0;
  for (TracedProcess* each : due) {
    TracedProcess& process = *each;
    const bool is_free = are_wanted || is_first(process);
    const bool is_on_credit = has_credit(process);
    const bool is_settled = is_quiet(process);
    const std::uint64_t most = is_free ? kFirstScansAtOnceNs : kScansAtOnceNs;
    if (took >= (are_wanted ? kWantedScansAtOnceNs : most)) break;
    look_at_new_pages(process, process.scan(proc_));
    take_samples_meanwhile();
    const std::uint64_t before = std::exchange(took, thread_cpu_ns() - begin);
    process.note_scan(monotonic_ns(), took - before, is_settled);
    if (is_on_credit) rest_credit_ns_ -= std::min(rest_credit_ns_, took - before);
    if (!is_free) spent += took - before;
  }
  if (spent == 0) return;
  const std::uint64_t end = monotonic_ns();
  scans_.ran(end, spent);
  scan_budget_.spend(end, spent);
}

void TracepointBackend::look_at_new_pages(TracedProcess& process,
                                          const std::vector<Mapping>& mappings) {
  const auto held = new_bytes(process.copies);
  if (!profiler_ || mappings.empty()) return;
  const auto pagemap = proc_.open(process.copies.pid, "pagemap");
  if (!pagemap) return;
  MemorySample& memory = *process.copies.memory;
  std::optional<FreeMemory> free;
  if (memory.private_bytes >= kLeastHeap)
    free = profiler_->free_pages(process.copies.pid, mappings);
  if (free) {
    memory.mmap_threshold_bytes = free->mmap_threshold;
    memory.free_bytes = memory.trimmable_bytes = memory.free_in_pymalloc_bytes = 0;
    for (const FreePages& each : free->pages)
      (void)internal::visit_anonymous_pages(
          pagemap->get(), each.begin, each.end,
          [&](std::uint64_t begin, std::uint64_t end, internal::AnonymousPage page) {
            if (page != internal::AnonymousPage::own) return;
            *memory.free_bytes += end - begin;
            if (each.in == FreeIn::malloc) *memory.trimmable_bytes += end - begin;
            if (each.in == FreeIn::pymalloc) *memory.free_in_pymalloc_bytes += end - begin;
          });
  }
  if (!held) return;
  NewPages::Look look = {
      [&](std::uint64_t address) { return internal::has_page(pagemap->get(), address); },
      {},
      *held / kPageSize};
  if (free)
    look.state = [&](std::uint64_t address) {
      const auto next = std::ranges::upper_bound(free->pages, address, {}, &FreePages::end);
      if (next == free->pages.end() || next->begin > address) return NewPage::held;
      return next->in == FreeIn::pymalloc ? NewPage::free_in_pymalloc : NewPage::free;
    };
  profiler_->look(process.live->counts.id, look);
}

// A child that is first seen now may inherit from a parent that has ended.  So an ended process is
// kept for one more sample().
void TracepointBackend::forget_the_ended() {
  for (auto& [id, process] : processes_) {
    if (!process.live || process.copies.alive) continue;
    // It may have given back what it got, but not what is new.
    if (const auto held = new_bytes_at_end(process.copies); profiler_ && held)
      profiler_->end(
          id, std::max(*held, process.live->counts.risen_at_end_bytes.value_or(0)) / kPageSize);
    if (std::exchange(process.live->had_ended, true)) process.live.reset();
  }
}

NewMemory TracepointBackend::new_memory(const Measurement& result) const {
  const std::vector<ForkCopies> copies = fork_copies(result);
  std::map<std::uint64_t, HeldPages> held;
  std::size_t i = 0;
  for (const auto& [id, process] : processes_) {
    const ForkCopies& its = copies[i++];
    const bool is_forked = goes_on(process.copies);
    held[id] = {(its.new_bytes.value_or(0) - its.unfaulted_bytes) / kPageSize,
                !process.copies.alive, is_forked ? 0 : its.most_given_bytes / kPageSize, is_forked};
  }
  return profiler_->new_memory(held);
}

Measurement TracepointBackend::measurement(const CodeOf& code) const {
  Measurement result = begun_measurement();
  result.lost_events = lost_;
  result.unsure_faults = unsure_faults_;
  result.overhead = overhead_;
  result.memory = memory_.memory();
  result.sampling = sampling_;
  CopiedPages pages;
  for (const auto& [id, process] : processes_)
    pages[id] = process.copies.all_copied_pages().value_or(0);
  result.processes.reserve(processes_.size());
  for (const auto& [id, process] : processes_) {
    ProcessCopies& copies = result.processes.emplace_back(process.copies);
    if (!profiler_ || !code.includes(copies)) continue;
    auto profile = profiler_->of(id, pages);
    copies.sampled = std::move(profile.sampled);
    copies.patterns = std::move(profile.patterns);
  }
  if (profiler_ && code.is_all()) {
    result.sampled = profiler_->of_all(pages);
    result.new_memory = new_memory(result);
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
