#pragma once

#include <cstdint>
#include <filesystem>

namespace cowshed {

// How much further the clocks of this process's time namespace are than the kernel's own, in
// nanoseconds; 0 outside of one.  BPF programs know the kernel's clocks alone,
// while clock_gettime(2) and /proc/PID/stat give those of the caller's namespace.
struct ClockOffsets {
  std::int64_t monotonic_ns = 0;
  std::int64_t boot_ns = 0;
};

// Of the calling process, by /proc/self/timens_offsets below `root`.
ClockOffsets clock_offsets(const std::filesystem::path& root = "/");

// A start by the kernel's CLOCK_BOOTTIME as /proc/PID/stat shows it to the caller: with the PID it
// names a process for good.
std::uint64_t start_ticks(std::uint64_t start_boot_ns, const ClockOffsets& offsets);

}  // namespace cowshed
