#include <algorithm>
#include <array>

#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/tree_memory.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kKiB = 1024;
// Of /proc/PID/status.
constexpr std::array<std::string_view, 5> kResident = {"RssAnon", "RssShmem", "VmRSS", "VmHWM",
                                                       "VmPTE"};

std::uint64_t less(std::uint64_t from, std::uint64_t what) { return from - std::min(from, what); }

// A process that has ended.
struct Lifetime {
  std::uint64_t start_ns;
  std::uint64_t end_ns;
  std::uint64_t grown;
};

// The most by which those that lived at the same time had grown.
std::uint64_t most_at_once(const std::vector<Lifetime>& processes) {
  std::vector<std::pair<std::uint64_t, std::int64_t>> changes;
  for (const Lifetime& each : processes) {
    const auto grown = static_cast<std::int64_t>(each.grown);
    changes.emplace_back(each.start_ns, grown);
    changes.emplace_back(each.end_ns + 1, -grown);
  }
  std::ranges::sort(changes);
  std::int64_t now = 0;
  std::int64_t most = 0;
  for (const auto& [when, change] : changes) most = std::max(most, now += change);
  return static_cast<std::uint64_t>(most);
}

// Or nobody asks for it.
bool has_pss(const TreeProcess& process) { return process.pss == nullptr || *process.pss; }

void set_pss(const TreeProcess& process, std::uint64_t bytes, std::uint64_t page_tables) {
  const std::uint64_t now = monotonic_ns();
  if (process.peak != nullptr && (!*process.peak || (*process.peak)->pss_bytes < bytes))
    *process.peak = MemoryPeak{bytes, now};
  if (process.pss != nullptr) *process.pss = PssSample{bytes, page_tables, now};
}

}  // namespace

void TreeMemoryMeter::begin() {
  constexpr std::uint64_t kFirstReadsNs = 100'000'000;
  constexpr std::uint64_t kFirstLooksNs = 20'000'000;
  reads_ = internal::TokenBucket(kReadsShare, kMostSavedNs, kFirstReadsNs);
  looks_ = internal::TokenBucket(kLooksShare, kMostSavedNs, kFirstLooksNs);
}

void TreeMemoryMeter::note(const TreeProcess& process, const std::vector<std::uint64_t>& kib,
                           Known& known) {
  const std::uint64_t resident = kib[2] * kKiB;
  if (resident == 0) return;  // it has ended
  State& now = known.now;
  now.anonymous_bytes = kib[0] * kKiB;
  now.shared_bytes = kib[1] * kKiB;
  now.file_bytes = less(resident, now.anonymous_bytes + now.shared_bytes);
  now.most_resident_bytes = kib[3] * kKiB;
  now.set_counts(process);
  known.read_ns = monotonic_ns();
  if (!std::exchange(known.is_read, true)) {
    State& then = known.then;
    const std::uint64_t own = less(process.filled_bytes, then.filled_bytes);
    const bool is_new = process.got_bytes.has_value();
    then.anonymous_bytes =
        std::min(process.got_bytes.value_or(less(now.anonymous_bytes, own)), now.anonymous_bytes);
    then.shared_bytes = less(now.shared_bytes, own);
    then.file_bytes = std::min(now.file_bytes, is_new ? most_mapped_ : now.file_bytes);
    known.next = then;
  }
  most_mapped_ = std::max(most_mapped_, now.file_bytes + now.shared_bytes);
}

// Not each write fault shows in the counts: mlock(2) and MAP_POPULATE raise none.
void TreeMemoryMeter::look_at(const ProcFiles& proc, const TreeProcess& process, Known& known) {
  constexpr std::uint64_t kUnchangedForNs = 20'000'000;  // for each process
  const bool has_changed = known.now.copied_bytes != *process.copied_bytes ||
                           known.now.filled_bytes != process.filled_bytes;
  const std::uint64_t now = monotonic_ns();
  const bool is_old = now - known.read_ns > kUnchangedForNs * (known_.size() + 1);
  if ((!has_changed && !is_old) || !looks_.is_left(now)) return;
  const std::uint64_t begin = thread_cpu_ns();
  note(process, proc.status_numbers(process.pid, kResident), known);
  looks_.spend(now, thread_cpu_ns() - begin);
}

// The memory that a process got itself since the last sum.  Shared memory is of the process that
// touched it first.
TreeMemoryMeter::Growth TreeMemoryMeter::added_by(const TreeProcess& process,
                                                  const Known& known) const {
  const State& now = known.now;
  const State& then = known.then;
  const std::uint64_t at_end = process.most_resident_bytes;
  if (!known.is_read) {
    const std::uint64_t filled = less(process.filled_bytes, then.filled_bytes);
    // Of one that ran before, all may be unread.
    const std::uint64_t known_bytes = process.got_bytes ? *process.got_bytes + most_mapped_ : 0;
    return {filled, std::max(filled, less(at_end, known_bytes))};
  }
  const std::uint64_t filled = less(now.filled_bytes, then.filled_bytes);
  const std::uint64_t shared = less(now.shared_bytes, then.shared_bytes);
  const std::uint64_t own_shared = std::min(shared, filled);
  // It may have filled what it gave back of memory that others still share.
  const std::uint64_t refilled =
      std::min(filled - own_shared, less(now.risen_bytes, then.risen_bytes));
  const std::uint64_t added = std::max(less(now.anonymous_bytes, then.anonymous_bytes), refilled) +
                              less(now.file_bytes, then.file_bytes) + own_shared;
  // What it gave back again, it may have had at any time.
  const std::uint64_t of_others = shared - own_shared;
  const std::uint64_t room = less(now.most_resident_bytes, then.resident_bytes() + of_others);
  const bool has_risen = now.most_resident_bytes > then.most_resident_bytes;
  const std::uint64_t most = std::max(added, has_risen ? room : std::min(room, filled));
  const std::uint64_t since = less(process.filled_bytes, now.filled_bytes);
  if (process.alive) return {added, most + since};
  if (at_end == 0) return {added + since, most + since};
  const std::uint64_t left = less(at_end, now.resident_bytes());
  const std::uint64_t risen = at_end > now.most_resident_bytes ? left : std::min(since, left);
  return {added + risen, std::max(most, added + risen)};
}

// It lacks half of a page that two share; of one that more share, what the parent's PSS has of it.
std::uint64_t TreeMemoryMeter::lacked_of(const TreeProcess& process, const Known& known) const {
  constexpr std::uint64_t kForkNs = 1'000'000;  // from the copy of its memory to its start
  const auto parent = known_.find(process.parent_id);
  if (known.then.summed_ns > 0 || parent == known_.end()) return 0;
  const State& then = parent->second.then;
  const bool is_before = !process.alive && process.end_ns < then.summed_from_ns;
  if (is_before || process.forked_ns > then.summed_ns + kForkNs) return 0;
  return std::min({process.got_at_fork_bytes / 2, then.pss_bytes, then.lent_bytes});
}

// How much more the tree holds by what a process did since the last sum; nullopt: nothing is known
// of it.  A copy leaves the resident memory of its process as it was, and takes a page more of all.
std::optional<TreeMemoryMeter::Growth> TreeMemoryMeter::growth_of(const ProcFiles& proc,
                                                                  const TreeProcess& process) {
  auto found = known_.find(process.id);
  if (!process.copied_bytes) return std::nullopt;
  if (found == known_.end()) {
    if (!process.alive && process.id <= newest_) return std::nullopt;  // it was in a sample before
    found = known_.try_emplace(process.id).first;
  }
  Known& known = found->second;
  if (std::exchange(known.execs, process.execs) != process.execs) {
    Known next;
    next.execs = process.execs;
    next.was_alive = known.was_alive;
    next.then.summed_ns = known.then.summed_ns;
    next.next.summed_ns = known.next.summed_ns;
    next.then.copied_bytes = std::min(known.now.copied_bytes, *process.copied_bytes);
    next.then.filled_bytes = std::min(known.now.filled_bytes, process.filled_bytes);
    known = next;
  }
  if (std::exchange(known.was_alive, process.alive) != process.alive) is_another_tree_ = true;
  if (process.alive) look_at(proc, process, known);
  const std::uint64_t copied = less(*process.copied_bytes, known.then.copied_bytes);
  const auto grown_by = [&](std::uint64_t added) {
    const std::uint64_t grown = process.are_all_faults ? std::max(copied, added) : copied + added;
    const std::uint64_t at_end = process.most_resident_bytes;
    if (process.alive ? !known.is_read : at_end == 0) return grown;
    return std::min(grown, process.alive ? known.now.most_resident_bytes + added : at_end);
  };
  const Growth added = added_by(process, known);
  const std::uint64_t lacked = lacked_of(process, known);
  if (!process.alive) known_.erase(found);
  return Growth{grown_by(added.now), grown_by(added.most), lacked};
}

void TreeMemoryMeter::note_growth(const ProcFiles& proc, const std::vector<TreeProcess>& tree) {
  std::vector<Lifetime> ended;
  std::uint64_t least_peak = 0;
  std::uint64_t most = 0;
  grown_.reset();
  for (const TreeProcess& process : tree) {
    least_peak = std::max(least_peak, process.least_peak_bytes);
    const auto grown = growth_of(proc, process);
    if (!grown) continue;
    grown_ = grown_.value_or(0) + (process.alive ? grown->now + grown->lacked : 0);
    most += grown->lacked;
    if (process.alive) most += grown->most;
    else if (unread_.erase(process.id) > 0) ended_unread_bytes_ += grown->most;
    if (!process.alive) ended.push_back({process.start_ns, process.end_ns, grown->most});
  }
  for (const TreeProcess& process : tree) newest_ = std::max(newest_, process.id);
  if (!memory_ || !grown_) return;
  memory_->peak_pss_bytes = std::max(memory_->peak_pss_bytes, least_peak);
  memory_->most_peak_bytes = std::max(
      memory_->most_peak_bytes, memory_->pss_bytes + unsure_bytes_ + most + most_at_once(ended));
}

bool TreeMemoryMeter::is_due() {
  const std::uint64_t now = monotonic_ns();
  if (!memory_) return pace_.is_due(now);
  constexpr std::uint64_t kSmall = 100;
  const std::uint64_t little = memory_->pss_bytes / kSmall;
  if (grown_ && (*grown_ > grown_then_ + little || *grown_ < grown_then_)) {
    grown_then_ = *grown_;
    rests_since_ns_ = now;
  }
  const bool has_changed =
      !grown_ || *grown_ > little || is_another_tree_ || now - last_ns_ > kUnchangedNs;
  if (has_changed && pace_.is_due(now)) return true;
  constexpr std::uint64_t kMargin = 10;
  const std::uint64_t peak = memory_->peak_pss_bytes;
  const std::uint64_t at_most = memory_->pss_bytes + grown_.value_or(0);
  if (at_most > peak + peak / kMargin) return true;
  return at_most > peak + peak / kSmall && now - rests_since_ns_ > kRestNs;
}

void TreeMemoryMeter::sample(const ProcFiles& proc, const std::vector<TreeProcess>& tree) {
  note_growth(proc, tree);
  const bool is_any_alive = std::ranges::any_of(tree, &TreeProcess::alive);
  if (is_wanted_ || (unread_.empty() && is_any_alive && is_due())) begin_sum(tree);
  if (!unread_.empty()) read(proc, tree);
  read_new(proc, tree);
}

// A tree of a thousand may take minutes, and short-lived processes would be in no sum.
void TreeMemoryMeter::read_new(const ProcFiles& proc, const std::vector<TreeProcess>& tree) {
  constexpr std::uint64_t kShortLifeNs = 300'000'000;
  const std::uint64_t now = monotonic_ns();
  for (const TreeProcess& process : tree) {
    if (!process.alive || has_pss(process) || process.start_ns + kShortLifeNs > now ||
        unread_.contains(process.id))
      continue;
    const auto known = known_.find(process.id);
    if (known == known_.end() || known->second.is_noticed) continue;
    if (!new_reads_.is_left(now)) return;
    known->second.is_noticed = true;
    const std::uint64_t begin = thread_cpu_ns();
    if (const auto pss = proc.pss(process.pid))
      set_pss(process, pss->bytes, proc.status_numbers(process.pid, kResident).back() * kKiB);
    new_reads_.spend(now, thread_cpu_ns() - begin);
  }
}

void TreeMemoryMeter::begin_sum(const std::vector<TreeProcess>& tree) {
  is_another_tree_ = false;
  grown_then_ = 0;
  took_ns_ = 0;
  ended_unread_bytes_ = 0;
  sum_ = {};
  memfds_.clear();
  unread_.clear();
  for (const TreeProcess& process : tree)
    if (process.alive) unread_.insert(unread_.end(), process.id);
}

void TreeMemoryMeter::read(const ProcFiles& proc, const std::vector<TreeProcess>& tree) {
  std::uint64_t begin = thread_cpu_ns();
  std::vector<TreeProcess> ordered = tree;
  std::ranges::stable_partition(ordered, [](const auto& each) { return !has_pss(each); });
  for (const TreeProcess& process : ordered) {
    if (!process.alive || !unread_.contains(process.id)) continue;
    if (!is_wanted_ && !reads_.is_left(monotonic_ns())) return;
    unread_.erase(process.id);
    read(proc, process);
    const std::uint64_t end = thread_cpu_ns();
    reads_.spend(monotonic_ns(), end - begin);
    took_ns_ += end - begin;
    begin = end;
  }
  unread_.clear();  // the others have ended
  is_wanted_ = false;
  finish();
}

void TreeMemoryMeter::read(const ProcFiles& proc, const TreeProcess& process) {
  const std::uint64_t from_ns = monotonic_ns();
  // First, so that what the process gets meanwhile is in its growth, too, and not in neither.
  const auto kib = proc.status_numbers(process.pid, kResident);
  const auto pss = proc.pss(process.pid);
  const bool is_refused = !pss && pss.error().code == ErrorCode::permission_denied;
  const auto known = known_.find(process.id);
  const std::uint64_t read_ns = pss || is_refused ? monotonic_ns() : 0;
  if (known != known_.end()) known->second.next.summed_ns = read_ns;
  if (is_refused) ++sum_.unread_processes;
  if (!pss) return;
  memfds_.merge(proc.memfds(process.pid));
  if (known != known_.end()) {
    note(process, kib, known->second);
    State& next = known->second.next;
    next = known->second.now;
    next.set_counts(process);
    next.summed_from_ns = from_ns;
    next.summed_ns = read_ns;
    next.pss_bytes = pss->anonymous_bytes;
    next.lent_bytes = less(kib[0] * kKiB, pss->anonymous_bytes);
  }
  const std::uint64_t page_tables = kib.back() * kKiB;
  sum_.pss_bytes += pss->bytes;
  sum_.shared_memory_bytes += pss->shared_memory_bytes;
  sum_.page_table_bytes += page_tables;
  ++sum_.processes;
  set_pss(process, pss->bytes, page_tables);
}

void TreeMemoryMeter::finish() {
  last_ns_ = monotonic_ns();
  pace_.ran(last_ns_, took_ns_);
  if (sum_.processes == 0) return;
  std::uint64_t in_memfds = 0;
  for (const auto& [file, bytes] : memfds_) in_memfds += bytes;
  const std::uint64_t unmapped = less(in_memfds, sum_.shared_memory_bytes);
  sum_.pss_bytes += unmapped;
  sum_.shared_memory_bytes += unmapped;
  unsure_bytes_ = std::exchange(ended_unread_bytes_, 0);
  for (auto& [id, known] : known_) known.then = known.next;
  if (memory_ && memory_->peak_pss_bytes >= sum_.pss_bytes) {
    memory_->pss_bytes = sum_.pss_bytes;
    return;
  }
  sum_.peak_pss_bytes = sum_.pss_bytes;
  sum_.most_peak_bytes = memory_ ? memory_->most_peak_bytes : 0;
  memory_ = sum_;
}

}  // namespace cowshed::cow
