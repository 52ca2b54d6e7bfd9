#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <optional>
#include <span>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/pagemap.h>

namespace cowshed::internal {
namespace {

using Visitor = std::function<void(std::uint64_t, std::uint64_t)>;

using arch::kPage;

// Documentation/admin-guide/mm/pagemap.rst.
constexpr std::uint64_t kFrame = (1ULL << 55) - 1;  // 0 without CAP_SYS_ADMIN
constexpr std::uint64_t kExclusive = 1ULL << 56;
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
constexpr std::uint64_t kScanHuge = 1U << 6;
constexpr std::uint64_t kScanZeroPage = 1U << 5;
constexpr unsigned long kScanRequest = _IOWR('f', 16, PagemapScan);

// Categories of PAGEMAP_SCAN: pages must have none of the first, and one of the second.
struct Categories {
  std::uint64_t none_of;
  std::uint64_t any_of;
};

// Linux before 6.7 does not know the request, and a container's seccomp filter may refuse it.
bool is_no_scan(int error) {
  return error == ENOTTY || error == EPERM || error == EACCES || error == ENOSYS || error == EINVAL;
}

// Visits ranges of such pages.  All pages of a range have the same `returned` categories.
template <std::size_t regions_at_once, class Visit>
int scan(int pagemap, std::uint64_t begin, std::uint64_t end, Categories wanted,
         std::uint64_t returned, const Visit& visit) {
  std::array<PageRegion, regions_at_once> regions;
  PagemapScan scan{};
  scan.size = sizeof scan;
  scan.start = begin;
  scan.end = end;
  scan.regions = reinterpret_cast<std::uintptr_t>(regions.data());
  scan.regions_count = regions.size();
  scan.category_inverted = wanted.none_of;
  scan.category_mask = wanted.none_of;
  scan.category_any_of = wanted.any_of;
  scan.return_mask = returned;
  while (scan.start < end) {
    const int count = ioctl(pagemap, kScanRequest, &scan);
    if (count < 0 && errno != EINTR) return is_no_scan(errno) ? ENOTTY : errno;
    for (int i = 0; i < count; ++i) {
      const PageRegion& region = regions[static_cast<std::size_t>(i)];
      visit(region.start, region.end, region.categories);
    }
    if (count >= 0) scan.start = scan.walk_end;
  }
  return 0;
}

constexpr std::uint64_t kNotAnonymous = kScanFile | kScanZeroPage;
constexpr std::uint64_t kThere = kScanPresent | kScanSwapped;

int scan_anonymous(int pagemap, std::uint64_t begin, std::uint64_t end, Anonymous which,
                   const Visitor& visit) {
  constexpr std::size_t kRegions = 512;
  constexpr std::uint64_t kSameForAll = kNotAnonymous;  // so that ranges are not split
  const auto visit_range = [&](auto from, auto to, auto) { visit(from, to); };
  if (which == Anonymous::resident) {
    return scan<kRegions>(pagemap, begin, end, {kNotAnonymous, kScanPresent}, kSameForAll,
                          visit_range);
  }
  // Of a huge page it takes long to find out whether it is a file's: the kernel reads its struct
  // page.
  int error = 0;
  const int outer = scan<kRegions>(
      pagemap, begin, end, {kScanHuge, kThere}, kSameForAll, [&](auto from, auto to, auto) {
        if (error == 0)
          error =
              scan<kRegions>(pagemap, from, to, {kNotAnonymous, kThere}, kSameForAll, visit_range);
      });
  return outer != 0 ? outer : error;
}

std::uint64_t find_zero_page_frame() {
  std::uint64_t entry = 0;
  const FileDescriptor pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  void* page = mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pagemap && page != MAP_FAILED) {
    (void)*static_cast<const volatile char*>(page);
    const auto at = reinterpret_cast<std::uintptr_t>(page) / kPage * sizeof entry;
    if (pread(pagemap.get(), &entry, sizeof entry, static_cast<off_t>(at)) != sizeof entry)
      entry = 0;
  }
  if (page != MAP_FAILED) munmap(page, kPage);
  return (entry & kExclusive) != 0 ? kFrame : entry & kFrame;
}

// Returns the page frame of the shared zero page, or 0 if this process may not read page frames.
// Some hypervisors have no zero page; then the result is a frame that no page has.  Not a static
// with a lock, which would stay locked in a child forked meanwhile.
std::uint64_t zero_page_frame() {
  constexpr std::uint64_t kUnknown = ~0ULL;
  static constinit std::atomic<std::uint64_t> frame = kUnknown;
  if (frame == kUnknown) frame = find_zero_page_frame();
  return frame;
}

bool is_wanted(std::uint64_t entry, Anonymous which, std::uint64_t zero_page) {
  if ((entry & kFileOrShared) != 0) return false;
  if ((entry & kPresent) == 0)
    return which == Anonymous::of_private_file && (entry & kSwapped) != 0;
  // The zero page is present, and neither a file's nor exclusive, as a shared anonymous page is.
  // Only its frame number differs.
  return zero_page == 0 || (entry & kFrame) != zero_page;
}

// Reads the entries of the pages from `begin` on.  Returns 0 or an errno.
int read_at(int pagemap, std::uint64_t begin, std::span<std::uint64_t> entries) {
  auto* next = reinterpret_cast<char*>(entries.data());
  auto offset = static_cast<off_t>(begin / kPage * sizeof entries[0]);
  for (std::size_t left = entries.size_bytes(); left > 0;) {
    const ssize_t got = pread(pagemap, next, left, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      // End of file: the process has no memory any more (pagemap_read() in fs/proc/task_mmu.c).
      return got < 0 ? errno : ESRCH;
    }
    next += got;
    offset += got;
    left -= static_cast<std::size_t>(got);
  }
  return 0;
}

// Visits the ranges of pages for which is_wanted(i) holds.  Works in steps: read(address, count)
// first reads what is_wanted() needs of `count` pages.
template <class Read, class IsWanted>
int visit_wanted(std::uint64_t begin, std::uint64_t end, const Visitor& visit, Read read,
                 IsWanted is_wanted) {
  constexpr std::uint64_t kStep = 65536;
  std::uint64_t run = end;  // where a run of wanted pages began; `end` outside a run
  for (std::uint64_t address = begin; address < end;) {
    const std::uint64_t count = std::min((end - address) / kPage, kStep);
    if (const int error = read(address, count)) return error;
    for (std::uint64_t i = 0; i < count; ++i, address += kPage) {
      const bool wanted = is_wanted(i);
      if (wanted && run == end) {
        run = address;
      } else if (!wanted && run != end) {
        visit(run, address);
        run = end;
      }
    }
  }
  if (run != end) visit(run, end);
  return 0;
}

int read_entries(int pagemap, std::uint64_t begin, std::uint64_t end, Anonymous which,
                 const Visitor& visit) {
  const std::uint64_t zero_page = zero_page_frame();
  std::vector<std::uint64_t> entries;
  const auto read = [&](std::uint64_t address, std::uint64_t count) {
    entries.resize(count);
    return read_at(pagemap, address, entries);
  };
  return visit_wanted(begin, end, visit, read,
                      [&](std::uint64_t i) { return is_wanted(entries[i], which, zero_page); });
}

// Small and on the stack, because a process that examines itself must not grow.
constexpr std::size_t kFewRegions = 64;
constexpr std::size_t kFewEntries = 256;

std::optional<AnonymousPage> classify(std::uint64_t entry, std::uint64_t zero_page) {
  if (!is_wanted(entry, Anonymous::of_private_file, zero_page)) return std::nullopt;
  if ((entry & kPresent) == 0) return AnonymousPage::swapped;
  return (entry & kExclusive) != 0 ? AnonymousPage::own : AnonymousPage::shared;
}

// Joins neighbouring pages of one kind into ranges.
struct Runs {
  explicit Runs(const std::function<void(std::uint64_t, std::uint64_t, AnonymousPage)>& visitor)
      : visit(visitor) {}

  void add(std::uint64_t from, std::uint64_t to, AnonymousPage page) {
    if (from == run_end && page == kind) {
      run_end = to;
      return;
    }
    end();
    run_begin = from;
    run_end = to;
    kind = page;
  }
  void end() {
    if (run_begin < run_end) visit(run_begin, run_end, kind);
    run_begin = run_end;
  }

  const std::function<void(std::uint64_t, std::uint64_t, AnonymousPage)>& visit;
  std::uint64_t run_begin = 0;
  std::uint64_t run_end = 0;
  AnonymousPage kind = AnonymousPage::own;
  int error = 0;
};

int classify(int pagemap, std::uint64_t begin, std::uint64_t end, Runs& runs) {
  const std::uint64_t zero_page = zero_page_frame();
  std::array<std::uint64_t, kFewEntries> entries;
  for (std::uint64_t address = begin; address < end;) {
    const std::uint64_t count = std::min<std::uint64_t>((end - address) / kPage, kFewEntries);
    if (const int error = read_at(pagemap, address, std::span(entries).first(count))) return error;
    for (std::uint64_t i = 0; i < count; ++i, address += kPage)
      if (const auto page = classify(entries[i], zero_page))
        runs.add(address, address + kPage, *page);
  }
  return 0;
}

}  // namespace

int visit_anonymous_ranges(int pagemap, std::uint64_t begin, std::uint64_t end, Anonymous which,
                           const Visitor& visit) {
  const int error = scan_anonymous(pagemap, begin, end, which, visit);
  return error == ENOTTY ? read_entries(pagemap, begin, end, which, visit) : error;
}

bool tells_zero_page() {
  const auto nothing = [](auto, auto, auto) {};
  const FileDescriptor pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  return scan<1>(pagemap.get(), 0, kPage, {0, kThere}, 0, nothing) == 0 || zero_page_frame() != 0;
}

int visit_anonymous_pages(
    int pagemap, std::uint64_t begin, std::uint64_t end,
    const std::function<void(std::uint64_t, std::uint64_t, AnonymousPage)>& visit) {
  Runs runs(visit);
  const int error =
      scan<kFewRegions>(pagemap, begin, end, {kNotAnonymous, kThere}, kScanSwapped,
                        [&](std::uint64_t from, std::uint64_t to, std::uint64_t categories) {
                          if ((categories & kScanSwapped) != 0)
                            runs.add(from, to, AnonymousPage::swapped);
                          else if (runs.error == 0) runs.error = classify(pagemap, from, to, runs);
                        });
  if (error == ENOTTY) runs.error = classify(pagemap, begin, end, runs);
  else if (error != 0) return error;
  runs.end();
  return runs.error;
}

int visit_huge_ranges(int pagemap, std::uint64_t begin, std::uint64_t end, const Visitor& visit) {
  const int error = scan<kFewRegions>(pagemap, begin, end, {kNotAnonymous, kScanHuge}, kScanHuge,
                                      [&](auto from, auto to, auto) { visit(from, to); });
  return error == ENOTTY ? 0 : error;
}

bool has_page(int pagemap, std::uint64_t address) {
  std::uint64_t entry = 0;
  const auto at = static_cast<off_t>(address / kPage * sizeof entry);
  return pread(pagemap, &entry, sizeof entry, at) == sizeof entry &&
         (entry & (kPresent | kSwapped)) != 0;
}

int visit_different_pages(int pagemap, int other, std::uint64_t begin, std::uint64_t end,
                          const Visitor& visit) {
  std::vector<std::uint64_t> before;
  std::vector<std::uint64_t> others;
  std::vector<std::uint64_t> after;  // read again, because the kernel may move a page meanwhile
  const auto read = [&](std::uint64_t address, std::uint64_t count) {
    for (auto* entries : {&before, &others, &after}) {
      entries->resize(count);
      if (const int error = read_at(entries == &others ? other : pagemap, address, *entries))
        return error;
    }
    return 0;
  };
  return visit_wanted(begin, end, visit, read, [&](std::uint64_t i) {
    const bool present = (before[i] & after[i] & others[i] & kPresent) != 0;
    const std::uint64_t frame = before[i] & kFrame;
    return present && frame != 0 && frame == (after[i] & kFrame) && frame != (others[i] & kFrame);
  });
}

}  // namespace cowshed::internal
