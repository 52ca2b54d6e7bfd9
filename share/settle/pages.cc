#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/arch/arch.h>
#include <cowshed/share/settle/pages.h>

namespace cowshed::settling {

using arch::kPage;

namespace {

struct Kept {
  pid_t thread = 0;
  int pagemap = -1;
  int memory = -1;
} kept_files;

FileDescriptor open_own(const char* path, int kept_file) {
  return FileDescriptor(kept_files.thread == gettid() ? fcntl(kept_file, F_DUPFD_CLOEXEC, 0)
                                                      : ::open(path, O_RDONLY | O_CLOEXEC));
}

}  // namespace

void OwnPages::keep_for_this_thread() {
  if (close_range(0, ~0U, CLOSE_RANGE_UNSHARE) != 0) return;
  if (auto pages = open())
    kept_files = {gettid(), pages->pagemap_.release(), pages->memory_.release()};
}

Expected<OwnPages> OwnPages::open() {
  OwnPages pages;
  pages.pagemap_ = open_own("/proc/self/pagemap", kept_files.pagemap);
  if (!pages.pagemap_) {
    const int error = errno;
    return system_error(error == EACCES ? "settle: /proc/self/pagemap (after setuid(2), settle "
                                          "once prctl(PR_SET_DUMPABLE, 1) was called)"
                                        : "settle: /proc/self/pagemap",
                        error);
  }
  pages.memory_ = open_own("/proc/self/mem", kept_files.memory);
  if (!pages.memory_) return system_error("settle: /proc/self/mem", errno);
  return pages;
}

int OwnPages::look(std::uintptr_t begin, std::span<std::uint64_t> pages) const {
  const long wanted = static_cast<long>(pages.size_bytes());
  const long got = syscall(SYS_pread64, pagemap_.get(), pages.data(), pages.size_bytes(),
                           begin / kPage * sizeof(std::uint64_t));
  if (got != wanted) return got < 0 ? errno : EFAULT;
  for (std::uint64_t& page : pages)
    page = page >> 63U != 0   ? (page >> 61U & 1U) != 0 ? kOfFile : kPresent
           : page >> 62U != 0 ? kElsewhere
                              : 0;
  return 0;
}

Range OwnPages::occupied(const Range& range) const {
  Range found = {range.begin, range.begin};
  bool has_begun = false;
  std::array<std::uint64_t, 512> pages;
  for (std::uintptr_t at = range.begin; at < range.end; at += pages.size() * kPage) {
    const std::size_t count = std::min(pages.size(), (range.end - at) / kPage);
    if (look(at, std::span(pages).first(count)) != 0) return range;
    for (std::size_t i = 0; i < count; ++i) {
      if (pages[i] == 0) continue;
      if (!has_begun) found.begin = at + i * kPage;
      has_begun = true;
      found.end = at + (i + 1) * kPage;
    }
  }
  return found;
}

bool OwnPages::peek(std::uintptr_t address, std::span<std::uint64_t> words) const {
  return syscall(SYS_pread64, memory_.get(), words.data(), words.size_bytes(), address) ==
         static_cast<long>(words.size_bytes());
}

}  // namespace cowshed::settling
