#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/sync.h>

namespace cowshed::internal {

std::byte* map_shared(int file, std::uint64_t offset, std::uint64_t bytes) {
  const std::uint64_t reserved = bytes + kHugePage;
  void* place =
      mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(place);
  std::byte* const base = begin + (-reinterpret_cast<std::uintptr_t>(begin) & (kHugePage - 1));
  std::byte* const end = base + bytes;
  if (mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file,
           static_cast<off_t>(offset)) == MAP_FAILED) {
    const int error = errno;
    munmap(place, reserved);
    errno = error;
    return nullptr;
  }
  if (base != begin) munmap(begin, static_cast<std::size_t>(base - begin));
  if (end != begin + reserved) munmap(end, static_cast<std::size_t>(begin + reserved - end));
  return base;
}

Woken futex_wait(const void* word, std::uint32_t seen, std::chrono::nanoseconds time) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  const std::int64_t rest = std::max<std::int64_t>(time.count(), 0);
  const timespec timeout = {rest / kSecond, rest % kSecond};
  if (syscall(SYS_futex, word, FUTEX_WAIT, seen, &timeout, nullptr, 0) == 0) return Woken::by_peer;
  return errno == ETIMEDOUT ? Woken::by_time : Woken::by_change;
}

int futex_wake(const void* word, int count) {
  return static_cast<int>(syscall(SYS_futex, word, FUTEX_WAKE, count, nullptr, nullptr, 0));
}

namespace {

struct flock byte_lock(short type, std::uint32_t index) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = index;
  lock.l_len = 1;
  return lock;
}

}  // namespace

int lock_byte(int file, std::uint32_t index) {
  auto lock = byte_lock(F_WRLCK, index);
  return fcntl(file, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

void unlock_byte(int file, std::uint32_t index) {
  auto lock = byte_lock(F_UNLCK, index);
  fcntl(file, F_OFD_SETLK, &lock);
}

bool byte_is_locked(int file, std::uint32_t index) {
  auto lock = byte_lock(F_WRLCK, index);
  return fcntl(file, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

int register_for_barriers() {
  return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0 ? 0 : errno;
}

void barrier_in_all_processes() { syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0); }

bool thread_is_stopped(std::uint32_t thread) {
  std::array<char, 32> path{};
  std::snprintf(path.data(), path.size(), "/proc/%u/stat", thread);
  const FileDescriptor file(open(path.data(), O_RDONLY | O_CLOEXEC));
  std::array<char, 256> text{};
  if (!file || read(file.get(), text.data(), text.size() - 1) <= 0) return false;
  const char* name_end = std::strrchr(text.data(), ')');
  return name_end != nullptr && name_end[1] == ' ' && (name_end[2] == 'T' || name_end[2] == 't');
}

}  // namespace cowshed::internal
