#pragma once

#include <memory>
#include <sys/types.h>

#include <cowshed/base/error.h>
#include <cowshed/cow/meter_result.h>

namespace cowshed::cow {

// Measures the shared pages that one process copies in a region of its run.  It reads
// /proc/PID/maps and pagemap, without privilege, of this process and of processes that it may
// ptrace, such as its children.  It works on any kernel.
//
//   auto meter = cowshed::cow::Meter::begin().value();   // in a forked worker
//   search(index);
//   meter.end();
//   EXPECT_THAT(meter.copied(), AtMost(4_KiB));          // cow/gtest_matchers.h
//
// begin() and end() each scan the resident memory (base/pagemap.h).  They write to no shared page,
// with one exception: end() may copy a few pages of this process's stack if it is called from
// deeper functions than begin().
//
// Limits, beside those of each figure in cow/meter_result.h:
// - Copies are unknown in memory that was unmapped, moved (dropped_bytes) or swapped out.
// - Memory that was discarded and touched again counts as copied if another process has the old
//   page.  So does a huge page that khugepaged made of shared pages.
// - Only the parent and the children at begin() count as sharers.  A copy of a page that only
//   others share, such as a sibling, appears in `left_alone`.
//
// Move-only; only assign to or destroy one that was moved from.  Not thread-safe.  Copies by other
// threads of the process count.
class Meter {
 public:
  // Begins a region in this process.  A forked child must begin its own: end() works only in the
  // same process.  Errors: system_call.
  static Expected<Meter> begin();
  // Begins a region in another process, which must not exec or end before end().  Errors:
  // no_such_process; permission_denied; invalid_argument for a vfork child before its exec.
  static Expected<Meter> begin(pid_t pid);

  Meter(Meter&&) noexcept;
  Meter& operator=(Meter&&) noexcept;
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;
  ~Meter();

  // Ends the region.  A further call extends it.  copied() returns the same errors:
  // no_such_process if the process has ended or called exec, which frees its copies;
  // invalid_argument in a forked child.
  Expected<void> end();

  // Returns the result of end().  Errors: those of end(); invalid_argument before it.
  const Expected<MeterResult>& copied() const;

 private:
  struct Region;
  explicit Meter(std::unique_ptr<Region> region);
  std::unique_ptr<Region> region_;
};

}  // namespace cowshed::cow
