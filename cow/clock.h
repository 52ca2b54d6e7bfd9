#pragma once

#include <cstdint>
#include <ctime>

namespace cowshed::cow {

// CLOCK_MONOTONIC in nanoseconds: the clock of bpf_ktime_get_ns and of a process's start time.
inline std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
  return static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace cowshed::cow
