#include <algorithm>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/object_copies.h>
#include <cowshed/cow/backends/attach_roots.h>
#include <cowshed/cow/backends/memory_sample.h>
#include <cowshed/cow/backends/process_rollup.h>
#include <cowshed/cow/backends/tracepoint_backend.h>
#include <cowshed/cow/proc/page_map.h>

namespace cowshed::cow {
namespace {

// Those of one moment together; who has waited longest is first the next time.
constexpr std::uint64_t kLooksAtOnceNs = 10'000'000;

constexpr std::chrono::milliseconds kShortestInterval{10};
constexpr std::chrono::milliseconds kLongestInterval{1000};
constexpr std::uint64_t kCostShare = 20;  // collect at most a twentieth of the time, and look too
// In the long run: half of a hundredth of a CPU, and as much is left for showing it.
constexpr std::uint64_t kSamplesShare = 400;
constexpr std::uint64_t kLooksShare = 400;
// A tree that is watched for longer than some seconds should not see more than that.
constexpr std::uint64_t kSamplesAtFirstNs = 50'000'000;
constexpr std::uint64_t kLooksAtFirstNs = 100'000'000;
constexpr std::uint64_t kUnchangedNs = 1'000'000'000;  // between looks at one that counts nothing

// Some 140 MB, where copies are sampled faster than they are attributed.
constexpr std::size_t kMostTakenMeanwhile = 16'384;

std::uint64_t total_bytes(const std::vector<ArenaCopies>& arenas) {
  std::uint64_t total = 0;
  for (const ArenaCopies& arena : arenas) total += arena.bytes.value_or(0);
  return total;
}

std::uint64_t copied_pages(const std::vector<ArenaCopies>& arenas) {
  std::uint64_t total = 0;
  for (const ArenaCopies& arena : arenas) total += arena.copied_pages;
  return total;
}

// Copied or inherited as copies.
PageRanges private_arena_pages(const ProcFiles& proc, pid_t pid) {
  PageRanges result;
  const auto mappings = proc.maps(pid);
  auto pages = PageMap::open(proc, pid);
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
      all_looks_(kCostShare),
      looks_budget_(kLooksShare, kLooksAtFirstNs),
      samples_budget_(kSamplesShare, kSamplesAtFirstNs) {
  if (sampling.period == 0) return;
  sampling_.emplace().period = sampling.period;
  sampler_ = std::make_unique<CopyProfiler>(proc_);
}

Expected<std::unique_ptr<Backend>> TracepointBackend::open(const SamplingOptions& sampling,
                                                           ProcFiles proc) {
  TRY(auto probe, Probe::load(sampling));
  return std::unique_ptr<Backend>(
      new TracepointBackend(std::move(probe), sampling, std::move(proc)));
}

Expected<void> TracepointBackend::track_command(pid_t child) { return probe_.track_command(child); }

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
      if (std::find(missing.begin(), missing.end(), root) == missing.end()) {
        alive_.insert(root);
        continue;
      }
      // The kernel may keep it from the probe as it keeps its memory from us.
      const auto stat = stat_of_readable(proc_, root);
      refused.emplace_back(root, stat ? no_memory_error(root, *stat) : stat.error());
    }
    return refused;
  };
  TRY(result.refused,
      attach_roots(roots, proc_, [this](pid_t pid) { return measures(pid); }, attach));
  return result;
}

std::chrono::milliseconds TracepointBackend::interval() const {
  const auto costing = [this](std::uint64_t share) {
    return std::chrono::milliseconds(usual_sample_cost_ns_ * share / 1'000'000);
  };
  const auto shortest = std::max(kShortestInterval, costing(kCostShare));
  if (samples_budget_.is_left(monotonic_ns())) return shortest;
  return std::max(shortest, std::min(kLongestInterval, costing(kSamplesShare)));
}

std::optional<std::chrono::milliseconds> TracepointBackend::pending_interval() const {
  if (!sampler_) return std::nullopt;
  return kShortestInterval;
}

// A process that is sampled before any snapshot has it may have ended by the next: so that comes at
// once, as long as the budget has something left for it.
bool TracepointBackend::take_pending() {
  if (!sampler_) return false;
  if (!take_samples()) return true;  // the error is there again
  taken_meanwhile_ = 0;
  sampler_->attribute_known([this] { take_samples_meanwhile(); });
  return sampler_->is_waiting() && samples_budget_.is_left(monotonic_ns());
}

bool TracepointBackend::any_alive() const {
  return std::any_of(processes_.begin(), processes_.end(),
                     [](const auto& entry) { return entry.second.alive; });
}

void TracepointBackend::read_arenas(std::uint64_t id, ProcessCopies& process) {
  const auto mappings = proc_.maps(process.pid);
  if (!mappings) return;
  std::map<std::string, std::uint64_t> bytes;
  for (const FrozenArena& arena : frozen_arenas(proc_, process.pid, *mappings)) {
    bytes[arena.name] += arena.mapping->bytes();
    details_[id].names[arena.mapping->begin] = arena.name;
  }
  for (const auto& [name, size] : bytes) arena_named(process.arenas, name).bytes = size;
}

void TracepointBackend::count_arenas(const ProcessCounts& counts, ProcessCopies& process) {
  auto& names = details_[counts.id].names;
  const auto is_new = [&](const ArenaCount& counted) {
    return counted.address != 0 && !names.contains(counted.address);
  };
  if (process.alive && std::any_of(counts.arenas.begin(), counts.arenas.end(), is_new)) {
    read_arenas(counts.id, process);
    // What it does not name is another file, for as long as it is there.
    for (const ArenaCount& counted : counts.arenas)
      if (counted.address != 0) names.try_emplace(counted.address);
  }
  std::map<std::string, std::uint64_t> copied;  // of all of an arena's generations
  for (const ArenaCount& counted : counts.arenas) {
    const std::string& name = counted.address == 0 ? counted.name : names[counted.address];
    if (!name.empty()) copied[name] += counted.copied_pages;
  }
  for (const auto& [name, pages] : copied) arena_named(process.arenas, name).copied_pages = pages;
}

void TracepointBackend::look_at_objects(std::uint64_t id, ProcessCopies& process) {
  Details& details = details_[id];
  const std::uint64_t copied = copied_pages(process.arenas);
  if (copied == 0) {
    process.objects.emplace();
    return;
  }
  if (process.objects && process.objects->empty()) process.objects.reset();
  // Costs a walk through /proc, so only where there is something new to see.
  if (!process.alive || process.shares_memory || details.pages_looked_at == copied) return;
  const auto mappings = proc_.maps(process.pid);
  auto pages = PageMap::open(proc_, process.pid);
  if (!mappings || !pages) return;
  PageRanges with_parent;
  std::optional<PageMap> parent_pages;
  if (!details.inherited.empty()) {
    const auto parent = processes_.find(details.parent_id);
    if (parent != processes_.end() && parent->second.alive) {
      with_parent = private_arena_pages(proc_, parent->second.pid);
      if (auto opened = PageMap::open(proc_, parent->second.pid)) parent_pages = std::move(*opened);
    }
  }
  std::vector<CopiedArena> arenas;
  for (const FrozenArena& arena : frozen_arenas(proc_, process.pid, *mappings)) {
    const auto all = pages->anonymous_pages_by_owner(*arena.mapping);
    if (!all) return;
    auto here = pages->copied_pages(*arena.mapping, *all, details.inherited, with_parent,
                                    parent_pages ? &*parent_pages : nullptr);
    if (!here || pages->is_gone()) return;
    if (!here->empty()) arenas.push_back({arena.mapping, std::move(*here)});
  }
  auto objects = copies_by_object(proc_, process.pid, *mappings, arenas);
  if (arenas.empty() || !objects) return;
  process.objects = std::move(objects);
  details.pages_looked_at = copied;
}

// At those that have counted something since, and now and then at the others: whom a page is shared
// with may change by what they do.
void TracepointBackend::look_at_memory(const Snapshot& snapshot) {
  const std::uint64_t begin = monotonic_ns();
  if (!all_looks_.is_due(begin) || !looks_budget_.is_left(begin)) return;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> due;  // since when, and who
  for (const ProcessCounts& counts : snapshot.processes) {
    if (!counts.alive || processes_.at(counts.id).shares_memory) continue;
    const Details& details = details_[counts.id];
    if (!details.pace.is_due(begin)) continue;
    if (!details.has_changed && begin - details.last_look_ns < kUnchangedNs) continue;
    due.emplace_back(details.last_look_ns, counts.id);
  }
  std::sort(due.begin(), due.end());
  const std::uint64_t cpu_begin = thread_cpu_ns();
  std::uint64_t took = 0;
  for (const auto& [last, id] : due) {
    look_inside(processes_.at(id));
    Details& details = details_.at(id);
    const std::uint64_t spent = thread_cpu_ns() - cpu_begin;
    details.last_look_ns = monotonic_ns();
    details.pace.ran(details.last_look_ns, spent - took);
    details.has_changed = false;
    took = spent;
    if (took >= kLooksAtOnceNs) break;
  }
  if (took == 0) return;
  const std::uint64_t end = monotonic_ns();
  all_looks_.ran(end, took);
  looks_budget_.spend(end, took);
}

void TracepointBackend::look_inside(ProcessCopies& process) {
  const auto mappings = proc_.maps(process.pid);
  auto memory = mappings ? sample_memory(proc_, process.pid, *mappings) : std::nullopt;
  if (!memory) {
    // Some kernels let CAP_PERFMON read the mappings alone.
    const auto pages = PageMap::open(proc_, process.pid);
    if (!pages && pages.error().code == ErrorCode::permission_denied) process.unreadable = true;
  }
  if (!mappings) return;
  if (auto sent = sent_objects(proc_, process.pid, *mappings)) process.transfers = std::move(sent);
  if (memory) {
    process.memory = memory;
    process.unreadable = false;
  }
  take_samples_meanwhile();
}

// Once for all children that it has had since the last sample(): a walk through /proc/PID/maps for
// each of 1,000 a second would take a tenth of a CPU.
const PageRanges& TracepointBackend::look_at_parent(std::uint64_t id, ProcessCopies& parent) {
  const auto [entry, is_new] = parents_.try_emplace(id);
  if (is_new && parent.alive) {
    read_arenas(id, parent);
    if (!parent.arenas.empty()) entry->second = private_arena_pages(proc_, parent.pid);
  }
  return entry->second;
}

void TracepointBackend::inherit(ProcessCopies& child, const ProcessCounts& counts) {
  const auto parent = processes_.find(counts.parent_id);
  if (parent != processes_.end()) {
    const PageRanges& pages = look_at_parent(parent->first, parent->second);
    if (counts.execs == 0) {
      details_[counts.id].names = details_[parent->first].names;
      for (const ArenaCopies& arena : parent->second.arenas)
        child.arenas.push_back({arena.name, arena.bytes, 0});
      if (counts.alive) {
        details_[counts.id].parent_id = parent->first;
        details_[counts.id].inherited = pages;
      }
    }
  } else if (counts.alive) {
    read_arenas(counts.id, child);
  }
  if (!counts.shared_at_fork_anon_bytes) return;
  child.shared_at_fork_bytes = *counts.shared_at_fork_anon_bytes;
  if (parent != processes_.end()) *child.shared_at_fork_bytes += total_bytes(parent->second.arenas);
}

void TracepointBackend::update(const ProcessCounts& counts) {
  const auto [entry, is_new] = processes_.try_emplace(counts.id);
  ProcessCopies& copies = entry->second;
  copies.pid = counts.pid;
  copies.ppid = counts.ppid;
  copies.comm = counts.comm;
  copies.role = counts.role == ProcessRole::root ? Role::root : Role::child;
  copies.alive = counts.alive;
  copies.start_ns = counts.start_ns;
  copies.end_ns = counts.end_ns;
  copies.exit_status = counts.exit_status;
  copies.signal = counts.signal;
  copies.shares_memory = counts.shares_memory && counts.execs == 0;
  copies.copied_anon_pages = counts.copied_anon_pages;
  copies.copied_file_pages = counts.copied_file_pages;
  copies.reused_pages = counts.reused_pages;
  copies.zero_page_writes = counts.zero_page_writes;
  copies.zero_filled_pages = counts.zero_filled_pages;
  copies.huge_splits = counts.huge_splits;
  copies.collapsed_pages = counts.collapsed_pages;
  copies.write_notify_faults = counts.write_notify_faults;
  copies.failed_faults = counts.failed_faults;
  copies.other_faults = counts.other_faults;
  Details& details = details_[counts.id];
  if (std::exchange(copies.execs, counts.execs) != counts.execs) details.names.clear();
  copies.copied_pages_before_exec = counts.copied_pages_before_exec;
  details.has_changed = true;
  if (is_new) inherit(copies, counts);
  count_arenas(counts, copies);
}

// A child that is seen only now, although its parent has ended, inherits from it: so it is kept for
// one sample more.
void TracepointBackend::forget_the_ended(const Snapshot& snapshot) {
  for (const std::uint64_t id : ended_) details_.erase(id);
  ended_.clear();
  for (const ProcessCounts& counts : snapshot.processes)
    if (!counts.alive) ended_.push_back(counts.id);
}

Expected<void> TracepointBackend::take_samples() {
  if (!sampler_) return {};
  TRY(auto samples, probe_.take_samples());
  taken_meanwhile_ += samples.size();
  sampler_->add(std::move(samples));
  return {};
}

// Or else the buffer of samples overflows while we look at a large process, or unwind stacks.
void TracepointBackend::take_samples_meanwhile() {
  if (taken_meanwhile_ >= kMostTakenMeanwhile) return;
  // An error is there again at the next sample(), which returns it.
  (void)take_samples();
}

Expected<void> TracepointBackend::sample() {
  TRY_VOID(take_samples());
  taken_meanwhile_ = 0;
  std::uint64_t begin = thread_cpu_ns();
  TRY(auto snapshot, probe_.snapshot());
  if (sampler_) {
    // Does not count as a cost: the buffer of samples would overflow while we look away for it.
    const std::uint64_t before = thread_cpu_ns();
    sampler_->attribute(snapshot.processes, [this] { take_samples_meanwhile(); });
    begin += thread_cpu_ns() - before;
  }
  alive_.clear();
  parents_.clear();
  auto before = counts_.begin();
  for (const ProcessCounts& counts : snapshot.processes) {
    while (before != counts_.end() && before->id < counts.id) ++before;
    if (before == counts_.end() || *before != counts) update(counts);
    look_at_objects(counts.id, processes_.at(counts.id));
    if (counts.alive) alive_.insert(alive_.end(), counts.pid);
  }
  lost_ = snapshot.losses.lost();
  unsure_faults_ = snapshot.losses.vma_misses;
  overhead_ = {snapshot.overhead.events, snapshot.overhead.ns_per_event};
  if (const auto counts = probe_.sample_counts(); counts && sampling_) {
    const std::uint64_t dropped = sampler_->dropped();
    sampling_ = {sampling_->period, counts->emitted, counts->received - dropped,
                 counts->lost + dropped};
  }
  // Of two, the lesser: one that was held up, or that had the kernel patch itself to time the
  // programs, is no reason to look away for so long.
  const std::uint64_t cost = thread_cpu_ns() - begin;
  samples_budget_.spend(monotonic_ns(), cost);
  usual_sample_cost_ns_ = std::min(cost, std::exchange(last_sample_cost_ns_, cost));
  // Looks have shares of their own, or samples would be as rare.
  look_at_memory(snapshot);
  forget_the_ended(snapshot);
  counts_ = std::move(snapshot.processes);
  return {};
}

void TracepointBackend::merge_ended(std::size_t most) {
  // Those of the last sample() may yet have a child that is not known (forget_the_ended).
  const auto may_be_merged = [this](const auto& entry) {
    return !entry.second.alive && !std::binary_search(ended_.begin(), ended_.end(), entry.first);
  };
  std::vector<std::uint64_t> ids;
  std::vector<EndedProcess> processes;
  for (auto& entry : processes_) {
    ids.push_back(entry.first);
    processes.push_back({&entry.second, may_be_merged(entry)});
  }
  cow::merge_ended(processes, most, [&](std::size_t i, std::size_t into) {
    if (sampler_) sampler_->merge(ids[i], ids[into]);
    processes_.erase(ids[i]);
  });
}

std::vector<ProcessCopies> TracepointBackend::take_ended() {
  std::vector<ProcessCopies> result;
  if (sampler_) return result;
  for (auto entry = processes_.begin(); entry != processes_.end();) {
    if (entry->second.alive) {
      ++entry;
      continue;
    }
    details_.erase(entry->first);
    result.push_back(std::move(entry->second));
    entry = processes_.erase(entry);
  }
  return result;
}

Measurement TracepointBackend::measurement(const CodeOf& code) const {
  Measurement result = begun_measurement();
  result.lost_events = lost_;
  result.unsure_faults = unsure_faults_;
  result.overhead = overhead_;
  result.sampling = sampling_;
  ProfileBuilder::Copies pages;
  if (sampler_)
    for (const auto& [id, copies] : processes_) pages[id] = copies.copied_pages().value_or(0);
  if (sampler_ && code.is_all()) result.sampled = sampler_->of_all(pages);
  result.processes.reserve(processes_.size());
  for (const auto& [id, copies] : processes_) {
    result.processes.push_back(copies);
    if (!sampler_ || !code.includes(copies)) continue;
    result.processes.back().sampled = sampler_->of(id, pages);
    result.processes.back().patterns = sampler_->patterns_of(id);
  }
  if (sampler_) result.sampling->unread = sampler_->unread();
  return result;
}

}  // namespace cowshed::cow
