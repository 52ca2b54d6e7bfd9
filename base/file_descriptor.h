#pragma once

#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace cowshed {

// Owns a file descriptor.  It is never 0, 1 or 2: in a process that has closed a standard stream,
// prints would go into an arena or a channel.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd < 0 || fd > STDERR_FILENO ? fd : move_up(fd)) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    FileDescriptor taken(std::move(other));  // closes the one that this had
    std::swap(fd_, taken.fd_);
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  int get() const { return fd_; }  // -1 if there is none
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  static int move_up(int fd) {
    const int above = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    ::close(fd);
    return above;
  }

  int fd_ = -1;
};

namespace internal {

struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  mode_t type = 0;  // 0: a closed descriptor
  bool operator==(const FileIdentity&) const = default;
};
inline FileIdentity identity_of(int fd) noexcept {
  struct stat status{};
  if (fstat(fd, &status) != 0) return {};
  return {status.st_dev, status.st_ino, status.st_mode & S_IFMT};
}

// Returns whether poll() finds one of the events, an error or a hang-up within `timeout` ms.  If
// not, errno is 0, or says why poll() failed.
inline bool is_ready(int fd, short events = POLLIN, int timeout = 0) {
  pollfd waiting = {fd, events, 0};
  const auto found = TEMP_FAILURE_RETRY(poll(&waiting, 1, timeout));
  if (found == 0) errno = 0;
  return found > 0;
}

}  // namespace internal
}  // namespace cowshed
