#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace cowshed {

// What the kernel says of our programs.  It times runs only while somebody has asked it to, for all
// programs of the machine and at some 40 ns a run, so we ask for short windows and extrapolate.
class RunStats {
 public:
  RunStats() = default;
  RunStats(RunStats&& other) noexcept;
  RunStats& operator=(RunStats&& other) noexcept;
  ~RunStats();  // stops the timing; so does the death of the process

  // Call now and then: opens a window, or closes the one that is open and adds it up.
  void sample(std::span<const int> programs);

  // Mean over the windows so far; nothing while no run was timed.
  std::optional<double> ns_per_run() const;

 private:
  int window_ = -1;  // descriptor that keeps the timing on
  std::uint64_t opened_ns_ = 0;
  std::uint64_t closed_ns_ = 0;
  std::uint64_t time_ = 0;
  std::uint64_t runs_ = 0;
};

// Runs that BPF refused because the program was running on that CPU already.
std::uint64_t missed_runs(std::span<const int> programs);

std::uint64_t monotonic_ns();

}  // namespace cowshed
