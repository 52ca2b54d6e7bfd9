#include <ctime>

#include "steps.h"

// Pages that the kernel merges, swaps out, or has to free others for.

namespace ground_truth {
namespace {

void sleep_a_little() {
  const timespec pause = {.tv_sec = 0, .tv_nsec = 1'000'000};
  nanosleep(&pause, nullptr);
}

// Merged pages of this process, as the kernel says.
long merged_pages() {
  std::array<char, 32> text{};
  const int fd = open("/proc/self/ksm_merging_pages", O_RDONLY | O_CLOEXEC);
  if (fd < 0 || read(fd, text.data(), text.size() - 1) < 0) fail("ksm_merging_pages");
  close(fd);
  return std::atol(text.data());
}

// Page i and page N + 1 + i are the same; so are the two that N = 0 has.
KIND(merged) {
  in_child([] {
    const long pairs = count + 1;
    const std::size_t size = 2 * static_cast<std::size_t>(pairs) * kPage;
    char* pages = small_pages(size);
    for (long i = 0; i < pairs; ++i) {
      for (char* page : {page_of(pages, i), page_of(pages, pairs + i)}) {
        *page = 1;  // no pair is of zeros
        std::memcpy(page + 8, &i, sizeof i);
      }
    }
    if (madvise(pages, size, MADV_MERGEABLE) != 0) fail("MADV_MERGEABLE");
    while (merged_pages() < 2 * pairs) sleep_a_little();
    write_all(pages);
  });
}

bool is_swapped_out(int pagemap, const char* page) {
  std::uint64_t entry = 0;
  const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(page) / kPage * sizeof entry);
  if (pread(pagemap, &entry, sizeof entry, at) != sizeof entry) fail("pagemap");
  return (entry >> 62 & 1) != 0;
}

void swap_out(char* pages) {
  const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  for (long i = 0; i < count; ++i) {
    while (!is_swapped_out(pagemap, page_of(pages, i)))
      if (madvise(page_of(pages, i), kPage, MADV_PAGEOUT) != 0) fail("MADV_PAGEOUT");
  }
  close(pagemap);
}

char* swapped_out_pages() {
  char* pages = written_private_pages();
  swap_out(pages);
  return pages;
}

KIND(swapped_out) {
  in_child([] {
    char* pages = swapped_out_pages();
    write_all(pages);
  });
}

KIND(swapped_out_and_shared) {
  char* pages = swapped_out_pages();
  in_child([=] { write_all(pages); });
}

// Each page is copied from the file once, and then comes back from swap twice.
KIND(file_copy_swapped_out) {
  const int file = filled_memory_file("plain");
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    write_all(pages);
    for (int time = 0; time < 2; ++time) {
      swap_out(pages);
      write_all(pages);
    }
  });
}

// Each page is filled where the memory cgroup is full of such pages, which do not compress: others
// are swapped out for it.
KIND(filled_under_pressure) {
  in_child([] {
    char* pages = private_pages();
    std::uint64_t random = 1;
    for (long i = 0; i < count; ++i) {
      store(page_of(pages, i));
      for (std::size_t at = 0; at < kPage; at += sizeof random) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::memcpy(page_of(pages, i) + at, &random, sizeof random);
      }
    }
  });
}

// Each page is copied where the memory cgroup is full of a file's pages: 48 MiB, clean.
KIND(under_pressure) {
  static std::array<char, 256 * kPage> buffer;
  constexpr int kBuffers = 48;
  const int fd = disk_file();
  char* pages = written_private_pages();
  std::memset(buffer.data(), 1, buffer.size());
  for (int i = 0; i < kBuffers; ++i) {
    const off_t at = i * static_cast<off_t>(buffer.size());
    if (pwrite(fd, buffer.data(), buffer.size(), at) < 0 || fsync(fd) != 0) fail("pwrite");
  }
  in_child([=] {
    for (int i = 0; i < kBuffers; ++i) {
      const off_t at = i * static_cast<off_t>(buffer.size());
      if (pread(fd, buffer.data(), buffer.size(), at) < 0) fail("pread");
    }
    write_all(pages);
  });
}

}  // namespace
}  // namespace ground_truth
