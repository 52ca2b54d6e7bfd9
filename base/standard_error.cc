#include <algorithm>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cowshed/base/standard_error.h>

namespace cowshed::internal {

FileIdentity standard_error_at_start = identity_of(STDERR_FILENO);

// A limit on the size of files kills the program, or lets only a part of the line through.
static bool is_below_the_limit(int fd, std::size_t size) noexcept {
  struct stat status{};
  rlimit limit{};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return true;
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return true;
  const off_t at = std::max(lseek(fd, 0, SEEK_CUR), status.st_size);
  return static_cast<rlim_t>(at) + size <= limit.rlim_cur;
}

void write_or_drop(int fd, std::string_view line) noexcept {
  pollfd output = {fd, POLLOUT, 0};
  if (poll(&output, 1, 0) != 1 || output.revents != POLLOUT) return;
  if (!is_below_the_limit(fd, line.size())) return;
  (void)!::write(fd, line.data(), line.size());
}

void write_to_standard_error(std::string_view line, const FileIdentity& expected) noexcept {
  if (expected.type == 0 || identity_of(STDERR_FILENO) != expected) return;
  // The program's own description may not become non-blocking, so pipes and terminals get another.
  FileDescriptor again;
  if (S_ISFIFO(expected.type) || S_ISCHR(expected.type))
    again = FileDescriptor(
        ::open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  write_or_drop(again ? again.get() : STDERR_FILENO, line);
}

void write_line(std::string_view line, const char* file,
                const FileIdentity& standard_error) noexcept {
  if (*file == '\0') return write_to_standard_error(line, standard_error);
  constexpr int kFlags = O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  const FileDescriptor log(::open(file, kFlags, 0666));
  write_or_drop(log.get(), line);
}

}  // namespace cowshed::internal
