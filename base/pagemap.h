#pragma once

#include <cstdint>
#include <functional>

namespace cowshed {

// Reads an open /proc/PID/pagemap, which needs no privilege for one's own processes and changes
// nothing in them.  Visits, in order, ranges [begin, end) of resident anonymous pages; in a private
// mapping of a file these are the pages that were written.  The shared zero page is not one of
// them.  With PAGEMAP_SCAN (Linux 6.7) the cost is in proportion to what is resident, a 2 MiB page
// counting as one; before that, 8 bytes are read for each 4 KiB.  Returns 0 or an errno; ESRCH:
// the process has replaced or lost its memory since the file was opened.
enum class Anonymous : std::uint8_t { resident, resident_or_swapped };
int visit_anonymous_ranges(int pagemap, std::uint64_t begin, std::uint64_t end, Anonymous which,
                           const std::function<void(std::uint64_t, std::uint64_t)>& visit);

}  // namespace cowshed
