#pragma once

#include <cstdint>
#include <functional>

// Reads /proc/PID/pagemap: which pages a process has, and which it shares.  Needs no privilege for
// one's own processes, and changes nothing in them.
namespace cowshed::internal {

// Which anonymous pages to visit.  In a private mapping of a file, these are the pages that the
// process has written.
enum class Anonymous : std::uint8_t {
  resident,
  // Resident or swapped, in a private mapping of a file.  Such pages are never huge.
  of_private_file,
};

// Visits ranges [begin, end) of such pages in order; `pagemap` is the open file.  Skips the shared
// zero page, if tells_zero_page().  With PAGEMAP_SCAN (Linux 6.7) it takes time in proportion to
// the resident pages, and a 2 MiB page counts as one; before, it reads 8 bytes per 4 KiB.  Returns
// 0 or an errno; ESRCH: the process has ended or executed since the file was opened.
int visit_anonymous_ranges(int pagemap, std::uint64_t begin, std::uint64_t end, Anonymous which,
                           const std::function<void(std::uint64_t, std::uint64_t)>& visit);

// Whether the shared zero page can be recognised.  Before Linux 6.7 that needs CAP_SYS_ADMIN;
// without, it looks like a page that is shared by fork.
bool tells_zero_page();

enum class AnonymousPage : std::uint8_t {
  own,      // mapped by this process alone
  shared,   // mapped by other processes, too: since a fork, or merged by KSM
  swapped,  // the kernel does not tell who else has it
};

// Visits all anonymous pages in order, in ranges of one kind; skips the zero page as above.
// Allocates no memory, so that a process can examine itself; `visit` is not copied.  Takes as long
// as `resident` above, and reads 8 bytes for each page.  Returns as above.
int visit_anonymous_pages(
    int pagemap, std::uint64_t begin, std::uint64_t end,
    const std::function<void(std::uint64_t, std::uint64_t, AnonymousPage)>& visit);

// Visits ranges of anonymous memory in 2 MiB pages, in order; none before Linux 6.7.  Returns as
// above.
int visit_huge_ranges(int pagemap, std::uint64_t begin, std::uint64_t end,
                      const std::function<void(std::uint64_t, std::uint64_t)>& visit);

// Whether there is a page at the address, in memory or swapped out; false if that cannot be read.
bool has_page(int pagemap, std::uint64_t address);

// Visits ranges of addresses at which two processes have different pages; both files are open
// pagemaps.  Finds none without CAP_SYS_ADMIN, because the kernel hides page numbers.  Returns as
// above.
int visit_different_pages(int pagemap, int other, std::uint64_t begin, std::uint64_t end,
                          const std::function<void(std::uint64_t, std::uint64_t)>& visit);

}  // namespace cowshed::internal
