#include <cerrno>
#include <chrono>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>

#include <cowshed/share/os/memfd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace cowshed::internal {

bool HeldFile::is_ours() const noexcept {
  if (identity.type != 0 && identity_of(fd) == identity) return true;
  errno = EBADF;
  return false;
}

void HeldFile::close() const noexcept {
  if (is_ours()) ::close(fd);
}

std::string descriptor_was_closed(const std::string& who) {
  return who + ": its descriptor was closed, as by closefrom(3); create it after that call";
}

FileDescriptor make_memfd(const std::string& label, Sealable sealable) {
  const unsigned flags = MFD_CLOEXEC | (sealable == Sealable::yes ? MFD_ALLOW_SEALING : 0U);
  int fd = memfd_create(label.c_str(), flags | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = memfd_create(label.c_str(), flags);
  return FileDescriptor(fd);
}

bool seal(int fd) {
  constexpr int kAttempts = 20;
  constexpr auto kPause = std::chrono::milliseconds(20);
  for (int attempt = 1; fcntl(fd, F_ADD_SEALS, kSealed) != 0; ++attempt) {
    if (errno != EBUSY || attempt == kAttempts) return false;
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

int write_all(int fd, const void* data, std::size_t size, std::uint64_t offset) noexcept {
  const auto* next = static_cast<const char*>(data);
  while (size > 0) {  // a call takes 2 GiB at most
    const ssize_t written = TEMP_FAILURE_RETRY(pwrite(fd, next, size, static_cast<off_t>(offset)));
    if (written <= 0) return written == 0 ? EIO : errno;
    next += written;
    size -= static_cast<std::size_t>(written);
    offset += static_cast<std::uint64_t>(written);
  }
  return 0;
}

Expected<void> set_file_size(int fd, std::uint64_t bytes, const std::string& who) {
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      bytes > limit.rlim_cur) {
    return make_error(ErrorCode::system_call,
                      who + ": a file of " + std::to_string(bytes) +
                          " bytes, where RLIMIT_FSIZE is " + std::to_string(limit.rlim_cur) +
                          "; raise it (ulimit -f)",
                      EFBIG);
  }
  if (TEMP_FAILURE_RETRY(ftruncate(fd, static_cast<off_t>(bytes))) != 0)
    return system_error(who + ": ftruncate", errno);
  return {};
}

bool allocate_pages(int fd, std::size_t offset, std::size_t size) noexcept {
  return TEMP_FAILURE_RETRY(
             fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(size))) == 0;
}

bool has_seals(int fd, int seals) {
  const int has = fcntl(fd, F_GET_SEALS);
  return has >= 0 && (has & seals) == seals;
}

}  // namespace cowshed::internal
