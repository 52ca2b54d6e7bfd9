#include <algorithm>

#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/tree_memory.h>

namespace cowshed::cow {

bool TreeMemoryMeter::is_due(const std::vector<pid_t>& pids, std::uint64_t allocated) const {
  const std::uint64_t now = monotonic_ns();
  if (is_wanted_) return true;
  if (!memory_) return pace_.is_due(now);
  const std::uint64_t grown = allocated - std::min(allocated, last_allocated_);
  constexpr std::uint64_t kSmall = 100;
  const bool has_changed = allocated == 0 || grown > memory_->pss_bytes / kSmall ||
                           pids != last_pids_ || now - last_ns_ > kUnchangedNs;
  if (has_changed && pace_.is_due(now)) return true;
  constexpr std::uint64_t kMargin = 25;
  const std::uint64_t peak = memory_->peak_pss_bytes;
  return memory_->pss_bytes + grown > peak + peak / kMargin && peaks_.is_left(now);
}

void TreeMemoryMeter::sample(const ProcFiles& proc, const std::vector<pid_t>& pids,
                             std::uint64_t allocated) {
  if (pids.empty() || !is_due(pids, allocated)) return;
  is_wanted_ = false;
  last_allocated_ = allocated;
  last_pids_ = pids;
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
  const std::uint64_t end = last_ns_ = monotonic_ns();
  const std::uint64_t took = thread_cpu_ns() - begin;
  pace_.ran(end, took);
  peaks_.spend(end, took);
  if (now.processes == 0) return;
  now.peak_pss_bytes = now.pss_bytes;
  if (memory_ && memory_->peak_pss_bytes >= now.pss_bytes) {
    memory_->pss_bytes = now.pss_bytes;
    return;
  }
  memory_ = now;
}

}  // namespace cowshed::cow
