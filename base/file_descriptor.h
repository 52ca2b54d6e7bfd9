#pragma once

#include <fcntl.h>
#include <unistd.h>
#include <utility>

namespace cowshed {

// A file descriptor that is closed with its owner.  Never a standard stream: in a process that has
// closed some, what is printed would go into an arena or a channel.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd < 0 || fd > STDERR_FILENO ? fd : move_up(fd)) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    Descriptor taken(std::move(other));  // closes the one that this had
    std::swap(fd_, taken.fd_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  int get() const { return fd_; }  // -1: none
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

}  // namespace cowshed
