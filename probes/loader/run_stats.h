#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include <cowshed/base/file_descriptor.h>

namespace cowshed {

// The kernel's times of our programs.  It times the runs of all programs on the machine, on
// request, and that costs more than the runs themselves (some 130 ns each in a guest).  So we
// request it in short windows, at most a twentieth of the time and ever more rarely.  Each patches
// the kernel's code twice, which interrupts every CPU and may take 8 ms in a guest without nested
// paging: so a window is followed by a pause of a thousand times the CPU time that it took.
class RunStats {
 public:
  // Runs between the two calls are timed, if a window is due.
  void begin_window();
  void end_window(std::span<const int> programs);

  // Returns the mean over all windows; nullopt: no run was timed.
  std::optional<double> ns_per_run() const;

 private:
  FileDescriptor window_;  // keeps the timing on, until the death of the process at most
  std::uint64_t begun_ns_ = 0;
  std::uint64_t cpu_ns_ = 0;  // that the request took
  std::uint64_t next_ns_ = 0;
  std::uint64_t pause_ns_ = 100'000'000;  // after the next window; doubled up to 2 s
  std::uint64_t time_ = 0;
  std::uint64_t runs_ = 0;
};

// Returns the runs that BPF refused because the program was already running on that CPU.
std::uint64_t missed_runs(std::span<const int> programs);

}  // namespace cowshed
