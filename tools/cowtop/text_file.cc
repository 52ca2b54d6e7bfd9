#include <cerrno>
#include <fcntl.h>
#include <unistd.h>
#include <vector>

#include <cowshed/tools/cowtop/text_file.h>

namespace cowshed::cowtop {

Expected<std::string> read_text_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return system_error(path, errno);
  constexpr std::size_t kAtOnce = 1 << 16;
  std::vector<char> bytes(kAtOnce);
  std::string text;
  for (;;) {
    const ssize_t got = ::read(fd, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    const int error = errno;
    if (got <= 0) ::close(fd);
    if (got < 0) return system_error(path, error);
    if (got == 0) return text;
    text.append(bytes.data(), static_cast<std::size_t>(got));
  }
}

}  // namespace cowshed::cowtop
