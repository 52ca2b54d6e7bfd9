#pragma once

#include <cstdint>
#include <memory>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Samples every page fault of a process from begin() on, of all its threads, those that it starts
// later, too, but of no process that it forks.  By two perf events of each thread on each CPU, each
// with a buffer on each CPU: addresses and instructions of all faults, and the stacks, too, of
// minor ones, as many as there is room for.  Without privilege where kernel.perf_event_paranoid is
// 2 or less, for this process and those that it may ptrace.
//
// The buffers are the kernel's memory, mapped shared: no fork copies them, and a child has neither
// them nor, after an exec, the descriptors.  One thread at a time.
class FaultSampler {
 public:
  // Errors, which say what would help: permission_denied, system_call.
  static Expected<FaultSampler> begin(pid_t pid);

  FaultSampler(FaultSampler&&) noexcept;
  FaultSampler& operator=(FaultSampler&&) noexcept;
  FaultSampler(const FaultSampler&) = delete;
  FaultSampler& operator=(const FaultSampler&) = delete;
  ~FaultSampler();

  // The kernel's own accesses, in system calls, are seen: kernel.perf_event_paranoid is 1 or less,
  // or CAP_PERFMON.
  bool sees_kernel() const;

  // The last fault of each of `pages`, of those that had one; may be repeated.  The last one was a
  // write, if the page was copied: reads come before.  A sample without a stack has no registers
  // but rip.
  std::vector<CopySample> last_on(const PageRanges& pages) const;

  // Faults for which there was no room.
  std::uint64_t lost() const;

 private:
  struct Events;
  explicit FaultSampler(std::unique_ptr<Events> events);
  std::unique_ptr<Events> events_;
};

}  // namespace cowshed::cow
