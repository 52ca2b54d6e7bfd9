#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/page_map.h>
#include <cowshed/cow/process_copies.h>

namespace cowshed::cow {
namespace {

// Documentation/admin-guide/mm/pagemap.rst.
constexpr std::uint64_t kFrame = (1ULL << 55) - 1;  // 0 without CAP_SYS_ADMIN
constexpr std::uint64_t kExclusive = 1ULL << 56;
constexpr std::uint64_t kFileOrShared = 1ULL << 61;
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
constexpr std::uint64_t kScanZeroPage = 1U << 5;
constexpr unsigned long kScanRequest = _IOWR('f', 16, PagemapScan);

constexpr std::size_t kPagesPerRead = 65536;

// Where the shared zero page lies in physical memory; 0 without the privilege to know.
std::uint64_t zero_page_frame() {
  static const std::uint64_t frame = [] {
    std::uint64_t entry = 0;
    const int fd = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    void* page = ::mmap(nullptr, kPageSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fd >= 0 && page != MAP_FAILED) {
      (void)*static_cast<const volatile char*>(page);
      const auto at = reinterpret_cast<std::uintptr_t>(page) / kPageSize * sizeof entry;
      if (::pread(fd, &entry, sizeof entry, static_cast<off_t>(at)) != sizeof entry) entry = 0;
    }
    if (page != MAP_FAILED) ::munmap(page, kPageSize);
    if (fd >= 0) ::close(fd);
    return entry & kFrame;
  }();
  return frame;
}

}  // namespace

Expected<PageMap> PageMap::open(const ProcFiles& proc, pid_t pid) {
  const std::string path = proc.path(pid, "pagemap");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return process_error(pid, path, errno);
  return PageMap(fd);
}

PageMap::PageMap(PageMap&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), gone_(other.gone_), buffer_(std::move(other.buffer_)) {}

PageMap& PageMap::operator=(PageMap&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(gone_, other.gone_);
  std::swap(buffer_, other.buffer_);
  return *this;
}

PageMap::~PageMap() {
  if (fd_ >= 0) ::close(fd_);
}

template <class Visitor>
Expected<void> PageMap::for_each_page(PageRange range, Visitor visitor) {
  buffer_.resize(kPagesPerRead);
  for (std::uint64_t address = range.begin; address < range.end;) {
    const std::uint64_t pages =
        std::min<std::uint64_t>((range.end - address) / kPageSize, kPagesPerRead);
    const ssize_t got = ::pread(fd_, buffer_.data(), pages * sizeof(std::uint64_t),
                                static_cast<off_t>(address / kPageSize * sizeof(std::uint64_t)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("read pagemap", errno);
    if (got == 0) {
      // fs/proc/task_mmu.c, pagemap_read: end of file once the process has no memory any more.
      gone_ = true;
      return {};
    }
    const auto read_pages = static_cast<std::uint64_t>(got) / sizeof(std::uint64_t);
    for (std::uint64_t i = 0; i < read_pages; ++i) visitor(address + i * kPageSize, buffer_[i]);
    address += read_pages * kPageSize;
  }
  return {};
}

Expected<PageRanges> PageMap::scan(PageRange range) {
  std::array<PageRegion, 512> regions;
  PageRanges result;
  PagemapScan scan{};
  scan.size = sizeof scan;
  scan.start = range.begin;
  scan.end = range.end;
  scan.regions = reinterpret_cast<std::uintptr_t>(regions.data());
  scan.regions_count = regions.size();
  scan.category_inverted = kScanFile | kScanZeroPage;
  scan.category_mask = kScanPresent | kScanFile | kScanZeroPage;
  scan.return_mask = kScanPresent;
  while (scan.start < range.end) {
    const int count = ::ioctl(fd_, kScanRequest, &scan);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == ESRCH) {
      gone_ = true;
      return result;
    }
    if (count < 0) return system_error("ioctl PAGEMAP_SCAN", errno);
    for (int i = 0; i < count; ++i) {
      const PageRegion& region = regions[static_cast<std::size_t>(i)];
      result.append({region.start, region.end});
    }
    scan.start = scan.walk_end;
  }
  return result;
}

Expected<PageRanges> PageMap::anonymous_pages(const Mapping& mapping) {
  const PageRange range{mapping.begin, mapping.end};
  auto scanned = scan(range);
  // ENOTTY: before 6.7.
  if (scanned || scanned.error().system_errno != ENOTTY) return scanned;
  PageRanges result;
  const std::uint64_t zero_page = zero_page_frame();
  const auto done = for_each_page(range, [&](std::uint64_t address, std::uint64_t entry) {
    // The zero page shows as present and as neither file nor exclusive, like a shared anonymous
    // page; only its place tells.
    const bool is_zero_page = zero_page != 0 && (entry & kFrame) == zero_page;
    if ((entry & (kPresent | kFileOrShared)) == kPresent && !is_zero_page) {
      result.append({address, address + kPageSize});
    }
  });
  if (!done) return tl::make_unexpected(done.error());
  return result;
}

Expected<PageRanges> PageMap::exclusive_pages(const PageRanges& pages) {
  PageRanges result;
  for (const PageRange& range : pages.ranges()) {
    const auto done = for_each_page(range, [&](std::uint64_t address, std::uint64_t entry) {
      if ((entry & (kPresent | kFileOrShared | kExclusive)) == (kPresent | kExclusive)) {
        result.append({address, address + kPageSize});
      }
    });
    if (!done) return tl::make_unexpected(done.error());
  }
  return result;
}

Expected<PageRanges> PageMap::copied_pages(const Mapping& mapping, const PageRanges& inherited,
                                           const PageRanges& with_parent) {
  auto resident = anonymous_pages(mapping);
  if (!resident) return resident;
  const PageRanges still_inherited = intersect(*resident, inherited);
  auto exclusive = exclusive_pages(intersect(still_inherited, with_parent));
  if (!exclusive || !mapping.has_file()) return exclusive;
  // What was not anonymous in the parent was copied from the file, here.
  return subtract(*resident, subtract(still_inherited, *exclusive));
}

}  // namespace cowshed::cow
