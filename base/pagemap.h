#pragma once

#include <cstdint>
#include <functional>

namespace cowshed {

// Which anonymous pages.  In a private mapping of a file these are the pages that were written.
enum class Anonymous : std::uint8_t {
  resident,
  // Resident or swapped, in a private mapping of a file; such pages are never huge, so that huge
  // ones need no second look.
  of_private_file,
};

// Reads an open /proc/PID/pagemap, which needs no privilege for one's own processes and changes
// nothing in them.  Visits ranges [begin, end) of such pages in order.  The shared zero page is not
// one of them, except on a kernel before 6.7 without CAP_SYS_ADMIN, where nothing tells it from a
// page shared by fork.  With PAGEMAP_SCAN (Linux 6.7) the cost is in proportion to what is
// resident, a 2 MiB page counting as one; before that 8 bytes are read for each 4 KiB.  Returns 0
// or an errno; ESRCH: the process has replaced or lost its memory since the file was opened.
int visit_anonymous_ranges(int pagemap, std::uint64_t begin, std::uint64_t end, Anonymous which,
                           const std::function<void(std::uint64_t, std::uint64_t)>& visit);

// Whether the shared zero page is told from others here: see above.
bool tells_zero_page();

enum class AnonymousPage : std::uint8_t {
  own,      // mapped by this process alone
  shared,   // by others, too: since a fork, or merged by KSM
  swapped,  // to whom it belongs is not told
};

// Visits all anonymous pages, in ranges of one kind, in order, with the exception named above.
// Allocates no memory, so that a process can look at itself; `visit` is not copied.  Costs as much
// as `resident` above, and 8 bytes for each of those.  Returns as above.
int visit_anonymous_pages(
    int pagemap, std::uint64_t begin, std::uint64_t end,
    const std::function<void(std::uint64_t, std::uint64_t, AnonymousPage)>& visit);

// Visits ranges of pages that are present in both processes and are two different pages there, by
// the open pagemaps of both.  Without CAP_SYS_ADMIN the kernel hides which page it is: then there
// are none.  Returns as above.
int visit_different_pages(int pagemap, int other, std::uint64_t begin, std::uint64_t end,
                          const std::function<void(std::uint64_t, std::uint64_t)>& visit);

}  // namespace cowshed
