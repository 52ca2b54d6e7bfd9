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

}  // namespace cowshed
