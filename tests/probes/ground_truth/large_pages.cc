#include "steps.h"

namespace ground_truth {

namespace {

constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1

// N + 1 blocks of this size, the first aligned.
char* blocks(std::size_t size, int flags) {
  const std::size_t length = static_cast<std::size_t>(count + 2) * size;
  void* mapped =
      mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (mapped == MAP_FAILED) fail("large pages");
  auto* start = static_cast<char*>(mapped);
  return start + (-reinterpret_cast<std::uintptr_t>(start) & (size - 1));
}

char* transparent(std::size_t size) {
  char* start = blocks(size, 0);
  if (madvise(start, static_cast<std::size_t>(count + 1) * size, MADV_HUGEPAGE) != 0)
    fail("MADV_HUGEPAGE");
  return start;
}

}  // namespace

char* huge_pages() { return transparent(kHuge); }

void touch_each(char* huge, std::size_t stride) {
  for (std::size_t at = 0; at < static_cast<std::size_t>(count) * kHuge; at += stride)
    store(huge + at);
}

namespace {

void read_each(const char* huge) {
  for (long i = 0; i < count; ++i)
    (void)*static_cast<const volatile char*>(huge + static_cast<std::size_t>(i) * kHuge);
}

// khugepaged must not collapse these pages again.  Setting its pause has just woken it.
char* touched_huge_pages() {
  char* huge = huge_pages();
  touch_each(huge, kHuge);
  if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) fail("PR_SET_THP_DISABLE");
  return huge;
}

KIND(huge_first_touch) {
  in_child([] { touch_each(huge_pages(), kHuge); });
}

KIND(huge_shared) {
  char* huge = touched_huge_pages();
  in_child([=] { touch_each(huge, kPage); });
}

KIND(huge_shared_one_byte) {
  char* huge = touched_huge_pages();
  in_child([=] { touch_each(huge, kHuge); });
}

// One byte of each, by the last who shares them.
void write_as_last_sharer(char* huge) {
  as_last_sharer(huge, static_cast<std::size_t>(count + 1) * kHuge,
                 [](char* all) { touch_each(all, kHuge); });
}

KIND(huge_last_sharer) { write_as_last_sharer(touched_huge_pages()); }

// The child makes a huge page of 511 small ones: 510 that it shares, one that is its own.
KIND(collapsed) {
  char* huge = huge_pages();
  const std::size_t size = static_cast<std::size_t>(count) * kHuge;
  madvise(huge, size, MADV_NOHUGEPAGE);
  touch_each(huge, kPage);
  for (long i = 0; i < count; ++i)
    madvise(huge + static_cast<std::size_t>(i + 1) * kHuge - kPage, kPage, MADV_DONTNEED);
  madvise(huge, size, MADV_HUGEPAGE);
  in_child([=] {
    touch_each(huge, kHuge);
    if (count != 0 && madvise(huge, size, kCollapse) != 0) fail("MADV_COLLAPSE");
    touch_each(huge, kPage);
  });
}

// A private mapping of a file that lies in memory in huge folios.  Each write is to the second page
// of 16.
KIND(second_pages_of_file_written) {
  constexpr long kStride = 16;
  const long writes = count;
  count = writes * kStride / 512 + 1;  // of huge pages
  char* huge = huge_pages();
  const std::size_t size = static_cast<std::size_t>(count) * kHuge;
  const int fd = memfd_create("plain", 0);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) != 0) fail("memfd");
  if (mmap(huge, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
    fail("mmap");
  touch_each(huge, kPage);
  if (madvise(huge, size, kCollapse) != 0) fail("MADV_COLLAPSE");
  munmap(huge, size);
  count = static_cast<long>(size / kPage) - 1;
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    read_all(pages);
    for (long i = 0; i < writes; ++i) store(page_of(pages, i * kStride + 1));
  });
}

// A read maps the kernel's huge page of zeros.
KIND(huge_zero_page) {
  in_child([] {
    char* huge = huge_pages();
    read_each(huge);
    touch_each(huge, kHuge);
  });
}

// Folios of 64 KiB, of which no 2 MiB are together.
constexpr std::size_t kFolio = std::size_t{64} << 10;
constexpr std::size_t kApart = 2 * kFolio;

char* folio(char* folios, long i) { return folios + static_cast<std::size_t>(i) * kApart; }

char* folios() {
  char* start = blocks(kApart, 0);
  for (long i = 0; i < count; ++i)
    if (madvise(folio(start, i), kFolio, MADV_HUGEPAGE) != 0) fail("MADV_HUGEPAGE");
  return start;
}

char* touched_folios() {
  char* start = folios();
  for (long i = 0; i < count; ++i) store(folio(start, i));
  return start;
}

void write_folios(char* start) {
  for (long i = 0; i < count; ++i)
    for (std::size_t at = 0; at < kFolio; at += kPage) store(folio(start, i) + at);
}

KIND(folio_first_touch) {
  in_child([] { touched_folios(); });
}

KIND(folio_shared) {
  char* start = touched_folios();
  in_child([=] { write_folios(start); });
}

KIND(folio_last_sharer) {
  as_last_sharer(touched_folios(), static_cast<std::size_t>(count + 1) * kApart, write_folios);
}

char* reserved_pages() { return blocks(kHuge, MAP_HUGETLB | MAP_NORESERVE); }

KIND(reserved_first_touch) {
  in_child([] { touch_each(reserved_pages(), kHuge); });
}

char* touched_reserved_pages() {
  char* huge = reserved_pages();
  touch_each(huge, kHuge);
  return huge;
}

KIND(reserved_shared) {
  char* huge = touched_reserved_pages();
  in_child([=] { touch_each(huge, kHuge); });
}

// The kernel writes.
KIND(reserved_kernel_copied) {
  char* huge = touched_reserved_pages();
  const int source = filled_memory_file("plain");
  in_child([=] {
    for (long i = 0; i < count; ++i)
      if (pread(source, huge + static_cast<std::size_t>(i) * kHuge, 1, 0) != 1) fail("pread");
  });
}

KIND(reserved_last_sharer) { write_as_last_sharer(touched_reserved_pages()); }

// A file of N + 1 pages, of which all but the last are filled, mapped privately.
char* reserved_file() {
  const std::size_t size = static_cast<std::size_t>(count + 1) * kHuge;
  const int fd = memfd_create("reserved", MFD_HUGETLB);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) != 0) fail("MFD_HUGETLB");
  const auto mapped = [=](int flags) {
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (at == MAP_FAILED) fail("large pages");
    return static_cast<char*>(at);
  };
  touch_each(mapped(MAP_SHARED), kHuge);
  return mapped(MAP_PRIVATE | MAP_NORESERVE);
}

KIND(reserved_file_never_read) {
  char* huge = reserved_file();
  in_child([=] { touch_each(huge, kHuge); });
}

KIND(reserved_file_read) {
  char* huge = reserved_file();
  in_child([=] {
    read_each(huge);
    touch_each(huge, kHuge);
  });
}

}  // namespace
}  // namespace ground_truth
