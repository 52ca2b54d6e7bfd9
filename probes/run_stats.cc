#include <bpf/bpf.h>
#include <time.h>
#include <unistd.h>
#include <utility>

#include <cowshed/probes/run_stats.h>

namespace cowshed {
namespace {

constexpr std::uint64_t kPauseNs = 10'000'000'000;  // between windows

bpf_prog_info info_of(int program) {
  bpf_prog_info info = {};
  __u32 size = sizeof info;
  bpf_obj_get_info_by_fd(program, &info, &size);
  return info;
}

}  // namespace

RunStats::RunStats(RunStats&& other) noexcept { *this = std::move(other); }

RunStats& RunStats::operator=(RunStats&& other) noexcept {
  std::swap(window_, other.window_);
  opened_ns_ = other.opened_ns_;
  closed_ns_ = other.closed_ns_;
  time_ = other.time_;
  runs_ = other.runs_;
  return *this;
}

RunStats::~RunStats() {
  if (window_ >= 0) {
    close(window_);
  }
}

void RunStats::sample(std::span<const int> programs) {
  const std::uint64_t now = monotonic_ns();
  if (window_ < 0) {
    if (closed_ns_ == 0 || now - closed_ns_ >= kPauseNs) {
      window_ = bpf_enable_stats(BPF_STATS_RUN_TIME);
    }
    return;
  }
  close(std::exchange(window_, -1));
  closed_ns_ = now;
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
  if (runs_ == 0) {
    return std::nullopt;
  }
  return static_cast<double>(time_) / static_cast<double>(runs_);
}

std::uint64_t missed_runs(std::span<const int> programs) {
  std::uint64_t missed = 0;
  for (const int program : programs) {
    missed += info_of(program).recursion_misses;
  }
  return missed;
}

std::uint64_t monotonic_ns() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace cowshed
