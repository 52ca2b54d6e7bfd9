#include <array>
#include <cstdio>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "attacks.h"

namespace cowshed::test {
namespace {

constexpr off_t kPage = 4096;

// An old way to punch a hole, which the kernel has for every file system but its headers only for
// XFS.
struct SpaceReservation {
  std::int16_t type;
  std::int16_t whence;
  std::int64_t start;
  std::int64_t length;
  std::int32_t system;
  std::uint32_t pid;
  std::array<std::int32_t, 4> unused;
};
constexpr unsigned long kUnreserve = _IOW('X', 43, SpaceReservation);  // FS_IOC_UNRESVSP

iovec payload_vector() { return {const_cast<std::byte*>(payload()), kPayloadSize}; }

off_t size_of(int fd) {
  struct stat status = {};
  need(fstat(fd, &status), "fstat");
  return status.st_size;
}

template <int Mode>
int reallocate(const Target& target) {
  return error_of(fallocate(target.fd, Mode, target.offset, static_cast<off_t>(target.size)));
}

std::string fd_path(pid_t pid, int fd) {
  return "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
}

// Through the link that /proc has for the attacker's mapping.
int open_map_file(const Target& target) {
  FILE* maps = std::fopen("/proc/self/maps", "re");
  std::array<char, 512> line{};
  std::string path;
  while (std::fgets(line.data(), static_cast<int>(line.size()), maps) != nullptr) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    const auto address = reinterpret_cast<std::uintptr_t>(target.address);
    if (std::sscanf(line.data(), "%zx-%zx ", &from, &to) == 2 && from <= address && address < to) {
      std::array<char, 80> name{};
      std::snprintf(name.data(), name.size(), "/proc/self/map_files/%zx-%zx", from, to);
      path = name.data();
    }
  }
  std::fclose(maps);
  return open(path.c_str(), O_RDWR | O_CLOEXEC);
}

int write_to(int fd, const Target& target) {
  return fd < 0 ? errno : error_of(pwrite(fd, payload(), kPayloadSize, target.offset));
}

// A pipe whose only buffer is the file's own page, as CVE-2022-0847 wants it.
std::array<int, 2> pipe_with_the_page(const Target& target) {
  std::array<int, 2> ends{};
  need(pipe(ends.data()), "pipe");
  off_t offset = target.offset;
  need(splice(target.fd, &offset, ends[1], nullptr, 1, 0), "splice");
  return ends;
}

}  // namespace

std::vector<Attack> attacks_on_the_file(Privileges may) {
  const Outcome nothing = allowed(Effect::nothing);
  const Outcome all = allowed(Effect::all);
  const Outcomes sealed = {refused(EPERM)};
  const Outcomes unknown = {refused(EOPNOTSUPP)};  // memfds do not have it at all
  return {
      {"write",
       [](const Target& t) {
         need(lseek(t.fd, t.offset, SEEK_SET), "lseek");
         return error_of(write(t.fd, payload(), kPayloadSize));
       },
       sealed,
       sealed,
       {all}},
      {"writev",
       [](const Target& t) {
         need(lseek(t.fd, t.offset, SEEK_SET), "lseek");
         const iovec from = payload_vector();
         return error_of(writev(t.fd, &from, 1));
       },
       sealed,
       sealed,
       {all}},
      {"pwrite to the descriptor",
       [](const Target& t) { return write_to(t.inherited, t); },
       sealed,
       sealed,
       {all}},
      {"pwrite to the re-opened descriptor",
       [](const Target& t) { return write_to(t.fd, t); },
       sealed,
       sealed,
       {all}},
      {"pwrite through /proc/OWNER/fd/N",
       [](const Target& t) {
         return write_to(open(fd_path(t.owner, t.owners_fd).c_str(), O_WRONLY | O_CLOEXEC), t);
       },
       sealed,
       sealed,
       {all}},
      {"pwrite through /proc/self/map_files",
       [](const Target& t) { return write_to(open_map_file(t), t); },
       sealed,
       sealed,
       {may.map_files ? all : refused(EPERM)}},
      {"mmap MAP_SHARED through /proc/self/map_files",
       [](const Target& t) {
         const int fd = open_map_file(t);
         return fd < 0 ? errno
                       : store_if_mapped(raw_mmap(nullptr, t.size, PROT_READ | PROT_WRITE,
                                                  MAP_SHARED, fd, t.offset));
       },
       sealed,
       sealed,
       {may.map_files ? all : refused(EPERM)}},
      {"pwritev2",
       [](const Target& t) {
         const iovec from = payload_vector();
         return error_of(pwritev2(t.fd, &from, 1, t.offset, RWF_SYNC));
       },
       sealed,
       sealed,
       {all}},
      {"ftruncate to nothing",
       [](const Target& t) { return error_of(ftruncate(t.fd, 0)); },
       sealed,
       sealed,
       {all}},
      {"ftruncate to more",
       [](const Target& t) { return error_of(ftruncate(t.fd, size_of(t.fd) + kPage)); },
       sealed,
       sealed,
       {nothing}},
      {"open with O_TRUNC",
       [](const Target& t) {
         return error_of(open(fd_path(getpid(), t.fd).c_str(), O_RDWR | O_TRUNC | O_CLOEXEC));
       },
       sealed,
       sealed,
       {all}},
      {"fallocate, more",
       [](const Target& t) { return error_of(fallocate(t.fd, 0, size_of(t.fd), kPage)); },
       sealed,
       sealed,
       {nothing}},
      {"fallocate, punch a hole",
       &reallocate < FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE >
       , sealed, sealed, {all}},
      {"fallocate, zero the range", &reallocate<FALLOC_FL_ZERO_RANGE>, unknown, unknown, unknown},
      {"fallocate, collapse the range", &reallocate<FALLOC_FL_COLLAPSE_RANGE>, unknown, unknown,
       unknown},
      {"fallocate, insert a range", &reallocate<FALLOC_FL_INSERT_RANGE>, unknown, unknown, unknown},
      {"ioctl FS_IOC_UNRESVSP",
       [](const Target& t) {
         SpaceReservation hole = {};
         hole.start = t.offset;
         hole.length = static_cast<off_t>(t.size);
         return error_of(ioctl(t.fd, kUnreserve, &hole));
       },
       sealed,
       sealed,
       {all}},
      {"ioctl FICLONE",
       [](const Target& t) { return error_of(ioctl(t.fd, FICLONE, payload_file())); }, unknown,
       unknown, unknown},
      // Before Linux 6.6 memfds have no flags.
      {"ioctl FS_IOC_SETFLAGS, FS_NODUMP_FL",
       [](const Target& t) {
         int flags = FS_NODUMP_FL;
         return error_of(ioctl(t.fd, FS_IOC_SETFLAGS, &flags));
       },
       {nothing, refused(ENOTTY)},
       {nothing, refused(ENOTTY)},
       {nothing, refused(ENOTTY)}},
      {"splice into it",
       [](const Target& t) {
         off_t offset = t.offset;
         return error_of(splice(payload_pipe(), nullptr, t.fd, &offset, kPayloadSize, 0));
       },
       sealed,
       sealed,
       {all}},
      {"sendfile into it",
       [](const Target& t) {
         need(lseek(t.fd, t.offset, SEEK_SET), "lseek");
         off_t from = 0;
         return error_of(sendfile(t.fd, payload_file(), &from, kPayloadSize));
       },
       sealed,
       sealed,
       {all}},
      {"copy_file_range into it",
       [](const Target& t) {
         off_t to = t.offset;
         off_t from = 0;
         return error_of(copy_file_range(payload_file(), &from, t.fd, &to, kPayloadSize, 0));
       },
       sealed,
       sealed,
       {all}},
      {"splice its page into a pipe, then write to the pipe",
       [](const Target& t) {
         const auto ends = pipe_with_the_page(t);
         return error_of(write(ends[1], payload(), 64));
       },
       {nothing},
       {nothing},
       {nothing}},
      {"tee its page to a second pipe, then write to that",
       [](const Target& t) {
         const auto ends = pipe_with_the_page(t);
         std::array<int, 2> second{};
         need(pipe(second.data()), "pipe");
         need(tee(ends[0], second[1], 1, 0), "tee");
         return error_of(write(second[1], payload(), 64));
       },
       {nothing},
       {nothing},
       {nothing}},
      {"vmsplice its page as a gift, then write to the pipe",
       [](const Target& t) {
         std::array<int, 2> ends{};
         need(pipe(ends.data()), "pipe");
         const iovec page = {t.address, static_cast<std::size_t>(kPage)};
         need(vmsplice(ends[1], &page, 1, SPLICE_F_GIFT), "vmsplice");
         return error_of(write(ends[1], payload(), 64));
       },
       {nothing},
       {nothing},
       {nothing}},
      {"fcntl F_ADD_SEALS, none",
       [](const Target& t) { return error_of(fcntl(t.fd, F_ADD_SEALS, 0)); },
       sealed,
       sealed,
       {nothing}},
      {"fcntl F_ADD_SEALS, F_SEAL_GROW",
       [](const Target& t) { return error_of(fcntl(t.fd, F_ADD_SEALS, F_SEAL_GROW)); },
       sealed,
       sealed,
       {nothing}},
      // Before Linux 6.3 a memfd cannot be kept from being executable.
      {"fchmod to executable",
       [](const Target& t) { return error_of(fchmod(t.fd, 0700)); },
       {refused(EPERM), nothing},
       {refused(EPERM), nothing},
       {refused(EPERM), nothing}},
  };
}

}  // namespace cowshed::test
