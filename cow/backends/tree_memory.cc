#include <algorithm>

#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/tree_memory.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kKiB = 1024;

std::uint64_t less(std::uint64_t from, std::uint64_t what) { return from - std::min(from, what); }

}  // namespace

void TreeMemoryMeter::expect_command() {
  constexpr std::uint64_t kFirstReadsNs = 100'000'000;
  constexpr std::uint64_t kFirstLooksNs = 20'000'000;
  reads_ = internal::TokenBucket(kReadsShare, kMostSavedNs, kFirstReadsNs);
  looks_ = internal::TokenBucket(kLooksShare, kMostSavedNs, kFirstLooksNs);
}

void TreeMemoryMeter::look_at(const ProcFiles& proc, const TreeProcess& process, Known& known) {
  const std::uint64_t counts = *process.copied_bytes + process.zero_filled_bytes;
  const bool is_new = !known.was_alive;
  known.was_alive = true;
  const std::uint64_t now = monotonic_ns();
  if ((counts == known.counts && !is_new) || !looks_.is_left(now)) return;
  const std::uint64_t begin = thread_cpu_ns();
  known.counts = counts;
  known.resident_bytes = proc.status_number(process.pid, "RssAnon") * kKiB;
  // What it did not allocate itself is not new, but its parent's.
  if (is_new) {
    known.resident_then = less(known.resident_bytes, process.zero_filled_bytes);
    known.resident_next = known.resident_then;
  }
  looks_.spend(now, thread_cpu_ns() - begin);
}

// A copy leaves the resident memory of its process as it was, and takes a page more of all.
void TreeMemoryMeter::note_growth(const ProcFiles& proc, const std::vector<TreeProcess>& tree) {
  std::uint64_t of_alive = 0;
  std::uint64_t of_ended = 0;
  bool has_one_ended = false;
  grown_.reset();
  for (const TreeProcess& process : tree) {
    if (!process.copied_bytes) continue;
    const auto found = known_.find(process.id);
    if (!process.alive && (found == known_.end() || !found->second.was_alive)) continue;
    Known& known = found == known_.end() ? known_[process.id] : found->second;
    is_another_tree_ = is_another_tree_ || known.was_alive != process.alive;
    if (process.alive) look_at(proc, process, known);
    const std::uint64_t copied = less(*process.copied_bytes, known.copied_then);
    const std::uint64_t added = less(known.resident_bytes, known.resident_then);
    const std::uint64_t grown = process.are_all_faults ? std::max(copied, added) : copied + added;
    (process.alive ? of_alive : of_ended) += grown;
    if (process.alive) continue;
    has_one_ended = true;
    known_.erase(process.id);
  }
  if (known_.empty() && !has_one_ended) return;
  grown_ = of_alive;
  if (memory_ && has_one_ended) {
    memory_->most_peak_bytes =
        std::max(memory_->most_peak_bytes, memory_->pss_bytes + of_alive + of_ended);
  }
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
  if (is_wanted_ || (unread_.empty() && is_any_alive && is_due())) begin(tree);
  if (!unread_.empty()) read(proc, tree);
}

void TreeMemoryMeter::begin(const std::vector<TreeProcess>& tree) {
  is_another_tree_ = false;
  grown_then_ = 0;
  took_ns_ = 0;
  sum_ = {};
  unread_.clear();
  for (const TreeProcess& process : tree)
    if (process.alive) unread_.insert(unread_.end(), process.id);
}

void TreeMemoryMeter::read(const ProcFiles& proc, const std::vector<TreeProcess>& tree) {
  std::uint64_t begin = thread_cpu_ns();
  for (const TreeProcess& process : tree) {
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
  if (const auto known = known_.find(process.id); known != known_.end()) {
    known->second.resident_next = known->second.resident_bytes;
    known->second.copied_next = *process.copied_bytes;
  }
  const auto pss = proc.pss_bytes(process.pid);
  if (!pss) {
    if (pss.error().code == ErrorCode::permission_denied) ++sum_.unread_processes;
    return;
  }
  const std::uint64_t page_tables = proc.status_number(process.pid, "VmPTE") * kKiB;
  const std::uint64_t now = monotonic_ns();
  sum_.pss_bytes += *pss;
  sum_.page_table_bytes += page_tables;
  ++sum_.processes;
  if (process.peak != nullptr && (!*process.peak || (*process.peak)->pss_bytes < *pss))
    *process.peak = MemoryPeak{*pss, now};
  if (process.pss != nullptr) *process.pss = PssSample{*pss, page_tables, now};
}

void TreeMemoryMeter::finish() {
  last_ns_ = monotonic_ns();
  pace_.ran(last_ns_, took_ns_);
  if (sum_.processes == 0) return;
  for (auto& [id, known] : known_) {
    known.resident_then = known.resident_next;
    known.copied_then = known.copied_next;
  }
  if (memory_ && memory_->peak_pss_bytes >= sum_.pss_bytes) {
    memory_->pss_bytes = sum_.pss_bytes;
    return;
  }
  sum_.peak_pss_bytes = sum_.pss_bytes;
  sum_.most_peak_bytes = memory_ ? memory_->most_peak_bytes : 0;
  memory_ = sum_;
}

}  // namespace cowshed::cow
