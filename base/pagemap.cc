#include <algorithm>
#include <array>
#include <cerrno>
#include <sys/ioctl.h>
#include <unistd.h>
#include <vector>

#include <cowshed/base/pagemap.h>

namespace cowshed {
namespace {

using Visitor = std::function<void(std::uint64_t, std::uint64_t)>;

constexpr std::uint64_t kPage = 4096;

// Documentation/admin-guide/mm/pagemap.rst.
constexpr std::uint64_t kFileOrShared = 1ULL << 61;
constexpr std::uint64_t kSwapped = 1ULL << 62;
constexpr std::uint64_t kPresent = 1ULL << 63;

// include/uapi/linux/fs.h since 6.7; Debian 12's headers are older.
struct PageRegion {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};
struct PagemapScan {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t regions;
  std::uint64_t regions_count;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_any_of;
  std::uint64_t return_mask;
};
constexpr std::uint64_t kScanFile = 1U << 2;
constexpr std::uint64_t kScanPresent = 1U << 3;
constexpr std::uint64_t kScanSwapped = 1U << 4;
constexpr std::uint64_t kScanZeroPage = 1U << 5;
constexpr unsigned long kScanRequest = _IOWR('f', 16, PagemapScan);

int scan(int pagemap, std::uint64_t begin, std::uint64_t end, bool swapped, const Visitor& visit) {
  std::array<PageRegion, 512> regions;
  PagemapScan scan{};
  scan.size = sizeof scan;
  scan.start = begin;
  scan.end = end;
  scan.regions = reinterpret_cast<std::uintptr_t>(regions.data());
  scan.regions_count = regions.size();
  scan.category_inverted = kScanFile | kScanZeroPage;
  scan.category_mask = kScanFile | kScanZeroPage;
  scan.category_any_of = swapped ? kScanPresent | kScanSwapped : kScanPresent;
  scan.return_mask = kScanFile;  // of no interest, and the same for all: ranges are not split
  while (scan.start < end) {
    const int count = ioctl(pagemap, kScanRequest, &scan);
    if (count < 0 && errno != EINTR) {
      return errno;
    }
    for (int i = 0; i < count; ++i) {
      visit(regions[static_cast<std::size_t>(i)].start, regions[static_cast<std::size_t>(i)].end);
    }
    if (count >= 0) {
      scan.start = scan.walk_end;
    }
  }
  return 0;
}

int read_entries(int pagemap, std::uint64_t begin, std::uint64_t end, bool swapped,
                 const Visitor& visit) {
  const std::uint64_t there = swapped ? kPresent | kSwapped : kPresent;
  std::vector<std::uint64_t> entries(std::min<std::uint64_t>((end - begin) / kPage, 65536));
  std::uint64_t run = end;  // where a run of anonymous pages began; `end`: in none
  for (std::uint64_t address = begin; address < end;) {
    const std::uint64_t wanted = std::min<std::uint64_t>((end - address) / kPage, entries.size());
    const ssize_t got = pread(pagemap, entries.data(), wanted * sizeof entries[0],
                              static_cast<off_t>(address / kPage * sizeof entries[0]));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      // fs/proc/task_mmu.c, pagemap_read: end of file once the process has no memory any more.
      return got < 0 ? errno : ESRCH;
    }
    const auto count = static_cast<std::uint64_t>(got) / sizeof entries[0];
    for (std::uint64_t i = 0; i < count; ++i, address += kPage) {
      // The zero page shows as present and as neither file nor exclusive, like a shared anonymous
      // page.
      const bool anonymous = (entries[i] & there) != 0 && (entries[i] & kFileOrShared) == 0;
      if (anonymous && run == end) {
        run = address;
      } else if (!anonymous && run != end) {
        visit(run, address);
        run = end;
      }
    }
  }
  if (run != end) {
    visit(run, end);
  }
  return 0;
}

}  // namespace

int visit_anonymous_ranges(int pagemap, std::uint64_t begin, std::uint64_t end, Anonymous which,
                           const Visitor& visit) {
  const bool swapped = which == Anonymous::resident_or_swapped;
  const int error = scan(pagemap, begin, end, swapped, visit);
  return error == ENOTTY ? read_entries(pagemap, begin, end, swapped, visit) : error;
}

}  // namespace cowshed
