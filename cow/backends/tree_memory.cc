#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/tree_memory.h>

namespace cowshed::cow {

void TreeMemoryMeter::sample(const ProcFiles& proc, const std::vector<pid_t>& pids) {
  const std::uint64_t start = monotonic_ns();
  const bool is_due = pace_.is_due(start) || pids.size() != processes_;
  if (pids.empty() || !is_due || !left_.is_left(start)) return;
  processes_ = pids.size();
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
  pace_.ran(end, thread_cpu_ns() - begin);
  left_.spend(end, thread_cpu_ns() - begin);
  if (now.processes == 0) return;
  now.peak_pss_bytes = now.pss_bytes;
  if (memory_ && memory_->peak_pss_bytes >= now.pss_bytes) {
    memory_->pss_bytes = now.pss_bytes;
    return;
  }
  memory_ = now;
}

}  // namespace cowshed::cow
