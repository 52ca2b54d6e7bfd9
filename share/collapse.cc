#include <cerrno>
#include <sys/mman.h>

#include <cowshed/share/collapse.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace cowshed {

int collapse_range(std::uintptr_t begin, std::size_t size) noexcept {
  // EAGAIN passes when a page is busy for a moment, and never while somebody's I/O holds one.
  constexpr int kTries = 8;
  int error = 0;
  for (int i = 0; i < kTries; ++i) {
    error = madvise(reinterpret_cast<void*>(begin), size, MADV_COLLAPSE) == 0 ? 0 : errno;
    if (error != EAGAIN) {
      break;
    }
  }
  return error;
}

void collapse_ranges(std::uintptr_t begin, const std::vector<std::size_t>& ranges,
                     const Progress& progress,
                     const std::function<void(std::size_t range, int error)>& visit) {
  for (std::size_t done = 0; done < ranges.size();) {
    std::size_t count = 1;
    while (count < kCollapseStep / kHugePage && done + count < ranges.size() &&
           ranges[done + count] == ranges[done] + count) {
      ++count;
    }
    collapse_each(begin + ranges[done] * kHugePage, count * kHugePage,
                  [&](std::size_t part, int error) { visit(ranges[done + part], error); });
    done += count;
    if (progress) {
      progress(done * kHugePage, ranges.size() * kHugePage);
    }
  }
}

}  // namespace cowshed
