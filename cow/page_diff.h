#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/page_frames.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc_files.h>
#include <cowshed/cow/process_copies.h>

// How much of what was copied was worth copying: copied pages, byte by byte, against a process that
// still shares the original.
namespace cowshed::cow {

using PageBytes = std::span<const std::byte, kPageSize>;

// Sums up comparisons.  A plain value.
class PageComparison {
 public:
  // `is_alone`: whose original it is has it alone, and may have written to it.
  void add(PageBytes copy, PageBytes original, bool is_alone = false);
  // Copied pages that are not there any more, or of which nobody has the original.
  void add_not_compared(std::uint64_t pages = 1) { sum_.not_compared_pages += pages; }
  void add_cost(std::uint64_t ns) { sum_.cost_ns += ns; }
  void add(const PageComparison& other);
  CopyDiff result() const;

 private:
  CopyDiff sum_;
  std::map<std::uint64_t, std::uint64_t> widths_;   // of changes, and how many
  std::map<std::uint64_t, std::uint64_t> strides_;  // from one change of a page to the next
};

// Compares the pages `copied` by process `pid` with the same addresses of `others`, its parent and
// siblings, or a child of it.  Who of them has the original is known by `originals`, the frames in
// which it was (page_frames.h): whoever has the page in that frame now.  Where that says nothing
// (the frames are hidden, or the page is a file's) whoever has a page there has it.  Of several it
// picks
//   1. who does not have the page alone (pagemap, bit 56) or has it from a file: it has been
//      write-protected since some fork, so it is what that fork shared;
//   2. else the first that has it alone.  That is the original if it was not written to since: by
//      its last owner, that costs no copy and leaves no trace.  These are counted in
//      `alone_pages`, and what they say is an upper bound of what was changed.
// What is assumed: that the others have the same mapping there, as processes have that share it by
// fork and did not map anew; and in case 1 that the fork is not a later one than that of `pid`,
// with a write in between by who had the original alone then.
//
// Reads through /proc/PID/mem, and only pages that pagemap shows as present: nothing is copied,
// faulted in or unshared in any of the processes (process_vm_readv would unshare).  Running
// processes may write meanwhile: the comparison is then as of some moment of it.  Costs some us a
// page; the result's cost_ns says what it did.  Needs ptrace permission for all of them; one of the
// others that may not be read, or has ended, is left out.  Errors: permission_denied,
// no_such_process, system_call, of `pid` alone.
Expected<PageComparison> compare_copied_pages(const ProcFiles& proc, pid_t pid,
                                              const PageRanges& copied,
                                              const std::vector<pid_t>& others,
                                              const PageFrames& originals = {});

}  // namespace cowshed::cow
