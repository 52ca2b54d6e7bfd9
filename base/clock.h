#pragma once

#include <cstdint>
#include <ctime>

namespace cowshed {

inline std::uint64_t clock_ns(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
  return static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// Returns CLOCK_MONOTONIC, which bpf_ktime_get_ns() and a process's start time use, too.
inline std::uint64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }

// Returns the CPU time that the calling thread has used.
inline std::uint64_t thread_cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace cowshed
