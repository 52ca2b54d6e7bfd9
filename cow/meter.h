#pragma once

#include <memory>
#include <sys/types.h>

#include <cowshed/base/error.h>
#include <cowshed/cow/meter_result.h>

namespace cowshed::cow {

// Measures what one process copies, of what it shares, in a region of its run.  By /proc/PID/maps
// and pagemap: without privilege, for this process and those that it may ptrace (its children among
// them), on any kernel.
//
//   auto meter = cowshed::cow::Meter::begin().value();   // in a forked worker
//   search(index);
//   meter.end();
//   EXPECT_THAT(meter.copied(), AtMost(4_KiB));          // cow/gtest_matchers.h
//
// Looks twice, so its cost is in proportion to the memory that is resident: see base/pagemap.h.
//
// Measuring writes to nothing that is shared: another process's memory is only looked at, and in
// one's own the memory for the looks is mapped anew.  Of this process's own stack, end() may copy a
// few pages where it is called from deeper functions than begin() was.
//
// What it cannot know, apart from what cow/meter_result.h says of each figure: copies of memory
// that was unmapped or moved again (dropped_bytes), or swapped out; memory that was unmapped or
// discarded and touched again at the same address looks copied where the other still has its page;
// a transparent huge page that khugepaged has put together of shared ones, too.  Huge pages that a
// fork shares are counted in the 4 KiB of which the kernel copies them.  Processes that share are
// looked for among the parent and the children at begin(): of what is shared with others only (a
// sibling, when the parent has ended) a copy shows as left_alone_bytes.
//
// Move-only.  Not thread-safe; other threads of the process may run, and what they copy counts.
class Meter {
 public:
  // Begins a region in this process.  end() belongs in the same process: a child forked from it has
  // to begin one of its own.
  static Expected<Meter> begin();
  // In another.  It should not start another program in the region, nor end before end().
  // Errors: no_such_process, permission_denied, invalid_argument (a vfork child that has no memory
  // of its own yet).
  static Expected<Meter> begin(pid_t pid);

  Meter(Meter&&) noexcept;
  Meter& operator=(Meter&&) noexcept;
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;
  ~Meter();

  // Ends the region: looks again.  May be repeated, then the region is from begin() to the last.
  // Errors, which copied() has, too: no_such_process (it has ended, or executed another program:
  // what it had copied is gone with its memory, so look while it waits, at a pipe say),
  // invalid_argument (in a forked child, see above).
  Expected<void> end();

  // What end() found.  Before it: invalid_argument.
  const Expected<MeterResult>& copied() const;

 private:
  struct Region;
  explicit Meter(std::unique_ptr<Region> region);
  std::unique_ptr<Region> region_;
};

}  // namespace cowshed::cow
