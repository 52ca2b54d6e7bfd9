#include <algorithm>
#include <cerrno>
#include <sys/mman.h>

#include <cowshed/share/os/huge_pages.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace cowshed::internal {

int collapse_range(std::uintptr_t begin, std::size_t size) noexcept {
  // EAGAIN: a page is busy.  That passes soon, or lasts as long as I/O on the page.
  constexpr int kTries = 8;
  int error = 0;
  for (int i = 0; i < kTries; ++i) {
    error = madvise(reinterpret_cast<void*>(begin), size, MADV_COLLAPSE) == 0 ? 0 : errno;
    if (error != EAGAIN) break;
  }
  return error;
}

std::vector<Run> collapse_runs(std::uintptr_t begin, const std::vector<Run>& runs,
                               const std::function<void(std::size_t, std::size_t)>& progress,
                               int& error) {
  std::vector<Run> small;
  const std::size_t total = size_of(runs);
  std::size_t done = 0;
  for (const Run& run : runs) {
    for (std::size_t at = run.begin; at < run.end; at += kCollapseStep) {
      const std::size_t end = std::min(at + kCollapseStep, run.end);
      const bool whole = collapse_range(begin + at, end - at) == 0;
      for (std::size_t range = at; range < end && !whole; range += kHugePage) {
        if (const int refused = collapse_range(begin + range, kHugePage)) {
          error = refused;
          append(small, {range, range + kHugePage});
        }
      }
      done += end - at;
      if (progress) progress(done, total);
    }
  }
  return small;
}

void keep_in_small_pages(void* memory, std::size_t size) noexcept {
  const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<std::uintptr_t>(memory) + size) / kPage * kPage;
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_NOHUGEPAGE);
}

}  // namespace cowshed::internal
