#include <algorithm>
#include <bpf/bpf.h>

#include <cowshed/base/clock.h>
#include <cowshed/probes/loader/run_stats.h>

namespace cowshed {
namespace {

constexpr std::uint64_t kLongestPauseNs = 2'000'000'000;
constexpr std::uint64_t kPausePerWindow = 20;
constexpr std::uint64_t kPausePerCpuTime = 1000;

bpf_prog_info info_of(int program) {
  bpf_prog_info info = {};
  __u32 size = sizeof info;
  bpf_obj_get_info_by_fd(program, &info, &size);
  return info;
}

}  // namespace

void RunStats::begin_window() {
  begun_ns_ = monotonic_ns();
  if (window_ || begun_ns_ < next_ns_) return;
  const std::uint64_t cpu = thread_cpu_ns();
  window_ = FileDescriptor(bpf_enable_stats(BPF_STATS_RUN_TIME));
  cpu_ns_ = thread_cpu_ns() - cpu;
}

void RunStats::end_window(std::span<const int> programs) {
  if (!window_) return;
  const std::uint64_t cpu = thread_cpu_ns();
  window_ = {};
  cpu_ns_ += thread_cpu_ns() - cpu;
  const std::uint64_t now = monotonic_ns();
  next_ns_ =
      now + std::max({pause_ns_, (now - begun_ns_) * kPausePerWindow, cpu_ns_ * kPausePerCpuTime});
  pause_ns_ = std::min(2 * pause_ns_, kLongestPauseNs);
  time_ = 0;
  runs_ = 0;
  for (const int program : programs) {
    // The kernel counts runs only while it times them, so these are totals over all windows.
    const bpf_prog_info info = info_of(program);
    time_ += info.run_time_ns;
    runs_ += info.run_cnt;
  }
}

std::optional<double> RunStats::ns_per_run() const {
  if (runs_ == 0) return std::nullopt;
  return static_cast<double>(time_) / static_cast<double>(runs_);
}

std::uint64_t missed_runs(std::span<const int> programs) {
  std::uint64_t missed = 0;
  for (const int program : programs) missed += info_of(program).recursion_misses;
  return missed;
}

}  // namespace cowshed
