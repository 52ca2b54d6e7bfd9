#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <unistd.h>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/settle/core_dumps.h>

namespace cowshed::settling {

void keep_files_in_core_dumps() noexcept {
  constexpr unsigned kPrivateFiles = 1U << 2U;  // core(5)
  const FileDescriptor file(open("/proc/self/coredump_filter", O_RDWR | O_CLOEXEC));
  std::array<char, 32> text = {};
  if (!file || pread(file.get(), text.data(), text.size() - 1, 0) <= 0) return;
  unsigned filter = 0;
  std::from_chars(text.data(), text.data() + text.size(), filter, 16);
  if ((filter & kPrivateFiles) != 0) return;
  const int size = std::snprintf(text.data(), text.size(), "0x%x", filter | kPrivateFiles);
  (void)!pwrite(file.get(), text.data(), static_cast<std::size_t>(size), 0);
}

}  // namespace cowshed::settling
