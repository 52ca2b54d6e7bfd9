#include <algorithm>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/tree_memory.h>

namespace cowshed::cow {

// `grown`: what was allocated since the last sample; nullopt: not known.
bool TreeMemoryMeter::is_due(const std::vector<pid_t>& pids, std::optional<std::uint64_t> grown) {
  const std::uint64_t now = monotonic_ns();
  if (is_wanted_) return true;
  if (!memory_) return pace_.is_due(now);
  constexpr std::uint64_t kSmall = 100;
  const std::uint64_t little = memory_->pss_bytes / kSmall;
  if (grown && *grown - grown_then_ > little) {
    grown_then_ = *grown;
    rests_since_ns_ = now;
  }
  const bool has_changed =
      !grown || *grown > little || pids != last_pids_ || now - last_ns_ > kUnchangedNs;
  if (has_changed && pace_.is_due(now)) return true;
  constexpr std::uint64_t kMargin = 10;
  const std::uint64_t peak = memory_->peak_pss_bytes;
  const std::uint64_t at_most = memory_->pss_bytes + grown.value_or(0);
  if (at_most > peak + peak / kMargin && peaks_.is_left(now)) return true;
  return at_most > peak + peak / kSmall && now - rests_since_ns_ > kRestNs && rests_.is_left(now);
}

void TreeMemoryMeter::sample(const ProcFiles& proc, std::vector<pid_t> pids,
                             std::uint64_t allocated) {
  std::sort(pids.begin(), pids.end());
  const std::uint64_t grown = allocated - std::min(allocated, last_allocated_);
  const bool has_one_ended =
      !std::includes(pids.begin(), pids.end(), last_pids_.begin(), last_pids_.end());
  if (memory_ && has_one_ended)
    memory_->most_peak_bytes = std::max(memory_->most_peak_bytes, memory_->pss_bytes + grown);
  if (pids.empty() || !is_due(pids, allocated > 0 ? std::optional(grown) : std::nullopt)) return;
  grown_then_ = 0;
  is_wanted_ = false;
  last_allocated_ = allocated;
  const std::uint64_t begin = thread_cpu_ns();
  TreeMemory now;
  for (const pid_t pid : pids) {
    const auto pss = proc.pss_bytes(pid);
    if (!pss) {
      if (pss.error().code == ErrorCode::permission_denied) ++now.unread_processes;
      continue;
    }
    constexpr std::uint64_t kKiB = 1024;
    now.pss_bytes += *pss;
    now.page_table_bytes += proc.status_number(pid, "VmPTE") * kKiB;
    ++now.processes;
  }
  last_pids_ = std::move(pids);
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
