#include <csignal>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attacks.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102  // Linux 6.13
#endif
#ifndef SYS_mseal
#define SYS_mseal 462  // Linux 6.10
#endif

// MADV_HWPOISON and MADV_SOFT_OFFLINE are left out: they need CAP_SYS_ADMIN and break the machine's
// memory, not the arena.
namespace cowshed::test {
namespace {

constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr std::size_t kPageBytes = 4096;

long raw_mremap(void* from, std::size_t old_size, std::size_t new_size, int flags,
                void* to = nullptr) {
  return syscall(SYS_mremap, from, old_size, new_size, flags, to);
}

int map_over(const Target& target, int flags, int fd) {
  return store_if_mapped(raw_mmap(target.address, target.size, kReadWrite, flags | MAP_FIXED, fd,
                                  fd < 0 ? 0 : target.offset));
}

int map_elsewhere(const Target& target, int flags, int fd) {
  return store_if_mapped(raw_mmap(nullptr, target.size, kReadWrite, flags, fd, target.offset));
}

template <int Advice>
int advise(const Target& target) {
  return error_of(syscall(SYS_madvise, target.address, target.size, Advice));
}

// Watches the words with nothing of them mapped, so that they are missing.
int watch_missing(const Target& target) {
  const auto fd = static_cast<int>(
      need(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY), "userfaultfd"));
  uffdio_api api = {.api = UFFD_API, .features = 0, .ioctls = 0};
  need(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
  uffdio_register range = {};
  range.range = {reinterpret_cast<std::uintptr_t>(target.address), target.size};
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  need(ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
  need(syscall(SYS_madvise, target.address, target.size, MADV_DONTNEED), "MADV_DONTNEED");
  return fd;
}

int fill_missing_with_payload(const Target& target) {
  const int fd = watch_missing(target);
  uffdio_copy copy = {};
  copy.dst = reinterpret_cast<std::uintptr_t>(target.address);
  copy.src = reinterpret_cast<std::uintptr_t>(payload());
  copy.len = kPageBytes;
  const int error = error_of(ioctl(fd, UFFDIO_COPY, &copy));
  close(fd);  // ends the watch: the words can be looked at again
  return error;
}

int fill_missing_with_zeros(const Target& target) {
  const int fd = watch_missing(target);
  uffdio_zeropage zero = {};
  zero.range = {reinterpret_cast<std::uintptr_t>(target.address), kPageBytes};
  const int error = error_of(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
  close(fd);
  return error;
}

int move_and_keep(const Target& target) {
  const long moved =
      raw_mremap(target.address, target.size, target.size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
  if (moved == -1) {
    return errno;
  }
  auto* there = reinterpret_cast<void*>(moved);
  need(syscall(SYS_mprotect, there, target.size, kReadWrite), "mprotect");
  return store(there);
}

int map_for_reading_then_allow_writes(const Target& target) {
  void* mapped = raw_mmap(nullptr, target.size, PROT_READ, MAP_SHARED, target.fd, target.offset);
  if (mapped == MAP_FAILED) {
    return errno;
  }
  const int error = error_of(syscall(SYS_mprotect, mapped, target.size, kReadWrite));
  return error != 0 ? error : store(mapped);
}

}  // namespace

std::vector<Attack> attacks_on_the_mapping() {
  const Outcome own = allowed(Effect::own_view);
  const Outcome nothing = allowed(Effect::nothing);
  const Outcome all = allowed(Effect::all);
  return {
      {"store", [](const Target& t) { return store(t.address); }, {dies(SIGSEGV)}, {own}, {all}},
      {"mprotect, then store",
       [](const Target& t) {
         const int error = error_of(syscall(SYS_mprotect, t.address, t.size, kReadWrite));
         return error != 0 ? error : store(t.address);
       },
       {own},
       {own},
       {all}},
      {"munmap",
       [](const Target& t) { return error_of(syscall(SYS_munmap, t.address, t.size)); },
       {own},
       {own},
       {own}},
      {"mremap away",
       [](const Target& t) {
         void* there = raw_mmap(nullptr, t.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return error_of(
             raw_mremap(t.address, t.size, t.size, MREMAP_MAYMOVE | MREMAP_FIXED, there));
       },
       {own},
       {own},
       {own}},
      {"mremap of something else over it",
       [](const Target& t) {
         void* other = raw_mmap(nullptr, t.size, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return error_of(
             raw_mremap(other, t.size, t.size, MREMAP_MAYMOVE | MREMAP_FIXED, t.address));
       },
       {own},
       {own},
       {own}},
      {"mremap of length 0 to a second mapping, then store",
       [](const Target& t) {
         const long second = raw_mremap(t.address, 0, t.size, MREMAP_MAYMOVE);
         return second == -1 ? errno : store(reinterpret_cast<void*>(second));
       },
       {refused(EINVAL)},
       {refused(EINVAL)},
       {all}},
      // Before Linux 5.13 for anonymous memory only.
      {"mremap with MREMAP_DONTUNMAP, then mprotect and store there",
       &move_and_keep,
       {nothing, refused(EINVAL)},
       {nothing, refused(EINVAL)},
       {all, refused(EINVAL)}},
      {"mmap MAP_FIXED over it, anonymous",
       [](const Target& t) { return map_over(t, MAP_PRIVATE | MAP_ANONYMOUS, -1); },
       {own},
       {own},
       {own}},
      {"mmap MAP_FIXED over it, private",
       [](const Target& t) { return map_over(t, MAP_PRIVATE, t.fd); },
       {own},
       {own},
       {own}},
      {"mmap MAP_FIXED over it, shared and writable",
       [](const Target& t) { return map_over(t, MAP_SHARED, t.fd); },
       {refused(EPERM)},
       {refused(EPERM)},
       {all}},
      {"mmap MAP_SHARED of the descriptor",
       [](const Target& t) { return map_elsewhere(t, MAP_SHARED, t.inherited); },
       {refused(EPERM)},
       {refused(EPERM)},
       {all}},
      {"mmap MAP_SHARED of the re-opened descriptor",
       [](const Target& t) { return map_elsewhere(t, MAP_SHARED, t.fd); },
       {refused(EPERM)},
       {refused(EPERM)},
       {all}},
      {"mmap MAP_SHARED_VALIDATE",
       [](const Target& t) { return map_elsewhere(t, MAP_SHARED_VALIDATE, t.fd); },
       {refused(EPERM)},
       {refused(EPERM)},
       {all}},
      // Linux 6.7 allows the first step, for reading for good.
      {"mmap MAP_SHARED for reading, then mprotect",
       &map_for_reading_then_allow_writes,
       {refused(EACCES), refused(EPERM)},
       {refused(EACCES), refused(EPERM)},
       {all}},
      {"remap_file_pages",
       [](const Target& t) {
         return error_of(syscall(SYS_remap_file_pages, t.address, kPageBytes, 0,
                                 t.offset / static_cast<off_t>(kPageBytes) + 1, 0));
       },
       {refused(EINVAL)},
       {refused(EINVAL)},
       {own}},
      {"MADV_DONTNEED", &advise<MADV_DONTNEED>, {nothing}, {nothing}, {nothing}},
      {"MADV_REMOVE", &advise<MADV_REMOVE>, {refused(EACCES)}, {refused(EACCES)}, {all}},
      {"MADV_FREE", &advise<MADV_FREE>, {refused(EINVAL)}, {refused(EINVAL)}, {refused(EINVAL)}},
      {"MADV_WIPEONFORK",
       &advise<MADV_WIPEONFORK>,
       {refused(EINVAL)},
       {refused(EINVAL)},
       {refused(EINVAL)}},
      // Refused where there is no huge page to be had, or before Linux 6.1.
      {"MADV_COLLAPSE",
       &advise<MADV_COLLAPSE>,
       {nothing, refused(EINVAL), refused(EAGAIN), refused(ENOMEM)},
       {nothing, refused(EINVAL), refused(EAGAIN), refused(ENOMEM)},
       {nothing, refused(EINVAL), refused(EAGAIN), refused(ENOMEM)}},
      {"MADV_POPULATE_WRITE",
       &advise<MADV_POPULATE_WRITE>,
       {refused(EINVAL)},
       {nothing},
       {nothing}},
      {"MADV_HUGEPAGE", &advise<MADV_HUGEPAGE>, {nothing}, {nothing}, {nothing}},
      {"MADV_PAGEOUT", &advise<MADV_PAGEOUT>, {nothing}, {nothing}, {nothing}},
      {"MADV_COLD", &advise<MADV_COLD>, {nothing}, {nothing}, {nothing}},
      {"MADV_MERGEABLE", &advise<MADV_MERGEABLE>, {nothing}, {nothing}, {nothing}},
      // Before Linux 6.15 for anonymous memory only.
      {"MADV_GUARD_INSTALL",
       &advise<MADV_GUARD_INSTALL>,
       {own, refused(EINVAL)},
       {own, refused(EINVAL)},
       {own, refused(EINVAL)}},
      {"mseal",
       [](const Target& t) { return error_of(syscall(SYS_mseal, t.address, t.size, 0)); },
       {nothing},
       {nothing},
       {nothing}},
      {"userfaultfd, UFFDIO_COPY", &fill_missing_with_payload, {own}, {own}, {refused(EEXIST)}},
      {"userfaultfd, UFFDIO_ZEROPAGE", &fill_missing_with_zeros, {own}, {own}, {refused(EEXIST)}},
      // A debugger's way in: the kernel copies the page even where the mapping is read-only, unless
      // it was started with proc_mem.force_override= (Linux 6.12).
      {"/proc/self/mem",
       [](const Target& t) {
         const auto fd = static_cast<int>(need(open("/proc/self/mem", O_RDWR | O_CLOEXEC), "open"));
         return error_of(
             pwrite(fd, payload(), kPayloadSize, reinterpret_cast<std::intptr_t>(t.address)));
       },
       {own, refused(EIO)},
       {own},
       {all}},
  };
}

}  // namespace cowshed::test
