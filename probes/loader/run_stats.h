#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include <cowshed/base/file_descriptor.h>

namespace cowshed {

// What the kernel says of our programs.  It times runs only while somebody asks it to, of all
// programs on the machine, and that costs more than the runs themselves (some 130 ns each where the
// clock is a guest's).  So we ask in short windows, a twentieth of the time at most.
class RunStats {
 public:
  // A window: whatever runs between the two calls is timed, if it is time for a sample.
  void begin_window();
  void end_window(std::span<const int> programs);

  // Mean over the windows so far; nothing while no run was timed.
  std::optional<double> ns_per_run() const;

 private:
  FileDescriptor window_;  // keeps the timing on, until the death of the process at most
  std::uint64_t begun_ns_ = 0;
  std::uint64_t next_ns_ = 0;
  std::uint64_t time_ = 0;
  std::uint64_t runs_ = 0;
};

// Runs that BPF refused because the program was running on that CPU already.
std::uint64_t missed_runs(std::span<const int> programs);

std::uint64_t monotonic_ns();

}  // namespace cowshed
