#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/tree_memory.h>

namespace cowshed::cow {

bool TreeMemoryMeter::may_exceed_peak(std::uint64_t allocated) const {
  constexpr std::uint64_t kMargin = 25;
  if (!memory_ || allocated < last_allocated_) return false;
  const std::uint64_t now = memory_->pss_bytes + (allocated - last_allocated_);
  return now > memory_->peak_pss_bytes + memory_->peak_pss_bytes / kMargin;
}

void TreeMemoryMeter::sample(const ProcFiles& proc, const std::vector<pid_t>& pids,
                             std::uint64_t allocated) {
  const std::uint64_t start = monotonic_ns();
  const bool is_due = pace_.is_due(start) || (may_exceed_peak(allocated) && peaks_.is_left(start));
  if (pids.empty() || !is_due) return;
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
  const std::uint64_t end = monotonic_ns();
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
