#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/tree_memory.h>

namespace cowshed::cow {

void TreeMemoryMeter::sample(const ProcFiles& proc, const std::vector<pid_t>& pids) {
  if (pids.empty() || !pace_.is_due(monotonic_ns())) return;
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
  pace_.ran(monotonic_ns(), thread_cpu_ns() - begin);
  if (now.processes == 0) return;
  now.peak_pss_bytes = now.pss_bytes;
  if (memory_ && memory_->peak_pss_bytes >= now.pss_bytes) {
    memory_->pss_bytes = now.pss_bytes;
    return;
  }
  memory_ = now;
}

}  // namespace cowshed::cow
