#include <algorithm>

#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/tree_memory.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kKiB = 1024;

std::uint64_t less(std::uint64_t from, std::uint64_t what) { return from - std::min(from, what); }

}  // namespace

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
  if (is_new) known.resident_then = less(known.resident_bytes, process.zero_filled_bytes);
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
    const std::uint64_t grown = less(*process.copied_bytes, known.copied_then) +
                                less(known.resident_bytes, known.resident_then);
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
  if (is_wanted_) return true;
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
  if (at_most > peak + peak / kMargin && peaks_.is_left(now)) return true;
  return at_most > peak + peak / kSmall && now - rests_since_ns_ > kRestNs && rests_.is_left(now);
}

void TreeMemoryMeter::sample(const ProcFiles& proc, const std::vector<TreeProcess>& tree) {
  note_growth(proc, tree);
  const bool is_any_alive = std::ranges::any_of(tree, &TreeProcess::alive);
  if (is_any_alive && is_due()) read(proc, tree);
}

void TreeMemoryMeter::read(const ProcFiles& proc, const std::vector<TreeProcess>& tree) {
  is_wanted_ = is_another_tree_ = false;
  grown_then_ = 0;
  const std::uint64_t begin = thread_cpu_ns();
  TreeMemory now;
  for (const TreeProcess& process : tree) {
    if (!process.alive) continue;
    if (const auto known = known_.find(process.id); known != known_.end()) {
      known->second.resident_then = known->second.resident_bytes;
      known->second.copied_then = *process.copied_bytes;
    }
    const auto pss = proc.pss_bytes(process.pid);
    if (!pss) {
      if (pss.error().code == ErrorCode::permission_denied) ++now.unread_processes;
      continue;
    }
    now.pss_bytes += *pss;
    now.page_table_bytes += proc.status_number(process.pid, "VmPTE") * kKiB;
    ++now.processes;
  }
  const std::uint64_t end = last_ns_ = monotonic_ns();
  const std::uint64_t took = thread_cpu_ns() - begin;
  pace_.ran(end, took);
  peaks_.spend(end, took);
  rests_.spend(end, took);
  if (now.processes == 0) return;
  now.peak_pss_bytes = now.pss_bytes;
  if (memory_ && memory_->peak_pss_bytes >= now.pss_bytes) {
    memory_->pss_bytes = now.pss_bytes;
    return;
  }
  now.most_peak_bytes = memory_ ? memory_->most_peak_bytes : 0;
  memory_ = now;
}

}  // namespace cowshed::cow
