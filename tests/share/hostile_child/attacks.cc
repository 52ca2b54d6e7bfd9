#include "attacks.h"

#include <linux/capability.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include <cowshed/tests/share/share.h>
#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/io_ring.h>

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

std::string fd_path(pid_t pid, int fd) {
  return "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
}

void* raw_mmap(void* address, std::size_t size, int protection, int flags, int fd, off_t offset) {
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, size, protection, flags, fd, offset));
}

namespace {

// The victim allows everybody to trace it, which is all that Yama's scope 1 asks.
bool may_trace_a_sibling() {
  std::ifstream file("/proc/sys/kernel/yama/ptrace_scope");
  int scope = 0;  // as without Yama
  file >> scope;
  return scope < 2 || (scope == 2 && has_capability(CAP_SYS_PTRACE));
}

std::string name_of(int error) {
  const char* name = strerrorname_np(error);
  return name == nullptr ? std::to_string(error) : name;
}

}  // namespace

std::string to_string(const Outcome& outcome) {
  constexpr std::array kEffects = {"nothing changes", "own view changes", "victim's view changes",
                                   "bytes change for all"};
  const std::string how = outcome.signal != 0
                              ? "dies by SIG" + std::string(sigabbrev_np(outcome.signal))
                          : outcome.error != 0 ? "refused with " + name_of(outcome.error)
                                               : "allowed";
  return how + ", " + kEffects.at(static_cast<std::size_t>(outcome.effect));
}

namespace {

// Throws, with `what` and the errno, when a call fails that is only a preparation.
long need(long result, const char* what) {
  if (result == -1) throw std::runtime_error(std::string(what) + ": " + name_of(errno));
  return result;
}
int need_descriptor(long result, const char* what) { return static_cast<int>(need(result, what)); }

// What a line of the tables below works on.
using On = const Target&;

constexpr std::uint32_t kPayloadSize = 4096;

// A page of bytes that the arena has nowhere.
const std::byte* payload() {
  alignas(kPayloadSize) static const auto bytes = [] {
    std::array<std::byte, kPayloadSize> result{};
    result.fill(std::byte{0xEE});
    return result;
  }();
  return bytes.data();
}

int payload_file() {
  const int fd = need_descriptor(memfd_create("payload", MFD_CLOEXEC), "memfd_create");
  need(pwrite(fd, payload(), kPayloadSize, 0), "filling a file");
  return fd;
}

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  need(pipe(ends.data()), "pipe");
  return ends;
}

// The reading end.
int payload_pipe() {
  const auto ends = make_pipe();
  need(write(ends[1], payload(), kPayloadSize), "filling a pipe");
  return ends[0];
}

// For calls that take these by their address.
const iovec* payload_vector() {
  static const iovec vector = {const_cast<std::byte*>(payload()), kPayloadSize};
  return &vector;
}
const iovec* words_of(const Target& target) {
  static iovec words;
  words = {target.address, kPayloadSize};
  return &words;
}

long store(void* to) {
  auto* bytes = static_cast<volatile unsigned char*>(to);
  for (std::size_t i = 0; i < 64; ++i) bytes[i] = 0xEE;
  return 0;
}

// The same, or the errno of a failed mmap.
long store_if_mapped(void* mapped, off_t offset = 0) {
  return mapped == MAP_FAILED ? -1 : store(static_cast<std::byte*>(mapped) + offset);
}

constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr off_t kPage = arch::kPage;

long raw_mremap(void* from, std::size_t old_size, std::size_t new_size, int flags,
                void* to = nullptr) {
  return syscall(SYS_mremap, from, old_size, new_size, flags, to);
}

long map_over(const Target& target, int flags, int fd) {
  return store_if_mapped(raw_mmap(target.address, target.size, kReadWrite, flags | MAP_FIXED, fd,
                                  fd < 0 ? 0 : target.offset));
}

long map_elsewhere(const Target& target, int flags, int fd) {
  return store_if_mapped(raw_mmap(nullptr, target.size, kReadWrite, flags, fd, target.offset));
}

template <int Advice>
long advise(const Target& target) {
  return syscall(SYS_madvise, target.address, target.size, Advice);
}

// Watches the words with nothing of them mapped, so that they are missing.
int watch_missing(const Target& target) {
  const int fd =
      need_descriptor(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY), "userfaultfd");
  uffdio_api api = {.api = UFFD_API, .features = 0, .ioctls = 0};
  need(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
  uffdio_register range = {};
  range.range = {reinterpret_cast<std::uintptr_t>(target.address), target.size};
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  need(ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
  need(syscall(SYS_madvise, target.address, target.size, MADV_DONTNEED), "MADV_DONTNEED");
  return fd;
}

long fill_missing(const Target& target) {
  const int fd = watch_missing(target);
  uffdio_copy copy = {};
  copy.dst = reinterpret_cast<std::uintptr_t>(target.address);
  copy.src = reinterpret_cast<std::uintptr_t>(payload());
  copy.len = kPage;
  const long result = ioctl(fd, UFFDIO_COPY, &copy);
  close(fd);  // ends the watch: the words can be looked at again
  return result;
}

long move_and_keep(const Target& target) {
  const long moved =
      raw_mremap(target.address, target.size, target.size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
  if (moved == -1) return -1;
  auto* there = reinterpret_cast<void*>(moved);
  need(syscall(SYS_mprotect, there, target.size, kReadWrite), "mprotect");
  return store(there);
}

long map_for_reading_then_allow_writes(const Target& target) {
  void* mapped = raw_mmap(nullptr, target.size, PROT_READ, MAP_SHARED, target.fd, target.offset);
  if (mapped == MAP_FAILED) return -1;
  return syscall(SYS_mprotect, mapped, target.size, kReadWrite) == -1 ? -1 : store(mapped);
}

std::vector<Attack> attacks_on_the_mapping() {
  const Outcomes own = allowed(Effect::own_view);
  const Outcomes nothing = allowed(Effect::nothing);
  return {
      {"store", dies(SIGSEGV), [](On t) { return store(t.address); }, own},
      {"mprotect, then store", own,
       [](On t) {
         return syscall(SYS_mprotect, t.address, t.size, kReadWrite) == -1 ? -1 : store(t.address);
       }},
      {"munmap", own, [](On t) { return syscall(SYS_munmap, t.address, t.size); }},
      {"mremap away", own,
       [](On t) {
         void* there = raw_mmap(nullptr, t.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return raw_mremap(t.address, t.size, t.size, MREMAP_MAYMOVE | MREMAP_FIXED, there);
       }},
      {"mremap of something else over it", own,
       [](On t) {
         void* other = raw_mmap(nullptr, t.size, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return raw_mremap(other, t.size, t.size, MREMAP_MAYMOVE | MREMAP_FIXED, t.address);
       }},
      {"mremap of length 0 to a second mapping, then store", refused(EINVAL),
       [](On t) {
         const long second = raw_mremap(t.address, 0, t.size, MREMAP_MAYMOVE);
         return second == -1 ? -1 : store(reinterpret_cast<void*>(second));
       }},
      // Before Linux 5.13 for anonymous memory only.
      {"mremap with MREMAP_DONTUNMAP, then mprotect and store there", nothing | refused(EINVAL),
       &move_and_keep},
      {"mmap MAP_FIXED over it, anonymous", own,
       [](On t) { return map_over(t, MAP_PRIVATE | MAP_ANONYMOUS, -1); }},
      {"mmap MAP_FIXED over it, private", own, [](On t) { return map_over(t, MAP_PRIVATE, t.fd); }},
      {"mmap MAP_FIXED over it, shared and writable", refused(EPERM),
       [](On t) { return map_over(t, MAP_SHARED, t.fd); }},
      {"mmap MAP_SHARED of the descriptor", refused(EPERM),
       [](On t) { return map_elsewhere(t, MAP_SHARED, t.inherited); }},
      {"mmap MAP_SHARED of the re-opened descriptor", refused(EPERM),
       [](On t) { return map_elsewhere(t, MAP_SHARED, t.fd); }},
      // Linux 6.7 allows the first step, for reading for good.
      {"mmap MAP_SHARED for reading, then mprotect", refused(EACCES) | refused(EPERM),
       &map_for_reading_then_allow_writes},
      {"MADV_DONTNEED", nothing, &advise<MADV_DONTNEED>},
      {"MADV_REMOVE", refused(EACCES), &advise<MADV_REMOVE>},
      {"MADV_FREE", refused(EINVAL), &advise<MADV_FREE>},
      {"MADV_WIPEONFORK", refused(EINVAL), &advise<MADV_WIPEONFORK>},
      // Refused where there is no huge page to be had, or before Linux 6.1.
      {"MADV_COLLAPSE", nothing | refused(EINVAL) | refused(EAGAIN) | refused(ENOMEM),
       &advise<MADV_COLLAPSE>},
      {"MADV_POPULATE_WRITE", refused(EINVAL), &advise<MADV_POPULATE_WRITE>, nothing},
      {"MADV_HUGEPAGE", nothing, &advise<MADV_HUGEPAGE>},
      {"MADV_PAGEOUT", nothing, &advise<MADV_PAGEOUT>},
      {"MADV_COLD", nothing, &advise<MADV_COLD>},
      {"MADV_MERGEABLE", nothing, &advise<MADV_MERGEABLE>},
      // Before Linux 6.15 for anonymous memory only.
      {"MADV_GUARD_INSTALL", own | refused(EINVAL), &advise<MADV_GUARD_INSTALL>},
      {"mseal", nothing, [](On t) { return syscall(SYS_mseal, t.address, t.size, 0); }},
      {"userfaultfd, UFFDIO_COPY", own, &fill_missing},
      // A debugger's way in: the kernel copies the page even where the mapping is read-only, unless
      // it was started with proc_mem.force_override= (Linux 6.12).
      {"/proc/self/mem", own | refused(EIO),
       [](On t) {
         const int fd = need_descriptor(open("/proc/self/mem", O_RDWR | O_CLOEXEC), "open");
         return pwrite(fd, payload(), kPayloadSize, reinterpret_cast<std::intptr_t>(t.address));
       },
       own},
  };
}

int seek_words(const Target& target) {
  need(lseek(target.fd, target.offset, SEEK_SET), "lseek");
  return target.fd;
}

off_t size_of(int fd) {
  struct stat status = {};
  need(fstat(fd, &status), "fstat");
  return status.st_size;
}

template <int Mode>
long reallocate(const Target& target) {
  return fallocate(target.fd, Mode, target.offset, static_cast<off_t>(target.size));
}

// Through the link that /proc has for the attacker's mapping.
int open_map_file(const Target& target) {
  const Mapping mapping = mapping_at(target.address);
  std::ostringstream path;
  path << "/proc/self/map_files/" << std::hex << mapping.begin << '-' << mapping.end;
  return open(path.str().c_str(), O_RDWR | O_CLOEXEC);
}

long write_to(int fd, const Target& target) {
  return fd < 0 ? -1 : pwrite(fd, payload(), kPayloadSize, target.offset);
}

// A pipe whose only buffer is the file's own page, as CVE-2022-0847 wants it.
std::array<int, 2> pipe_with_the_page(const Target& target) {
  const auto ends = make_pipe();
  off_t offset = target.offset;
  need(splice(target.fd, &offset, ends[1], nullptr, 1, 0), "splice");
  return ends;
}

std::vector<Attack> attacks_on_the_file() {
  const Outcomes nothing = allowed(Effect::nothing);
  const Outcomes sealed = refused(EPERM);
  const Outcomes unknown = refused(EOPNOTSUPP);  // memfds do not have it at all
  return {
      {"write", sealed, [](On t) { return write(seek_words(t), payload(), kPayloadSize); }},
      {"writev", sealed, [](On t) { return writev(seek_words(t), payload_vector(), 1); }},
      {"pwrite to the descriptor", sealed, [](On t) { return write_to(t.inherited, t); }},
      {"pwrite to the re-opened descriptor", sealed, [](On t) { return write_to(t.fd, t); }},
      {"pwrite through /proc/OWNER/fd/N", sealed,
       [](On t) {
         return write_to(open(fd_path(t.owner, t.owners_fd).c_str(), O_WRONLY | O_CLOEXEC), t);
       }},
      {"pwrite through /proc/self/map_files", sealed,
       [](On t) { return write_to(open_map_file(t), t); }},
      {"mmap MAP_SHARED through /proc/self/map_files", sealed,
       [](On t) {
         const int fd = open_map_file(t);
         return fd < 0 ? -1 : map_elsewhere(t, MAP_SHARED, fd);
       }},
      {"pwritev2", sealed,
       [](On t) { return pwritev2(t.fd, payload_vector(), 1, t.offset, RWF_SYNC); }},
      {"ftruncate to nothing", sealed, [](On t) { return ftruncate(t.fd, 0); }},
      {"ftruncate to more", sealed, [](On t) { return ftruncate(t.fd, size_of(t.fd) + kPage); }},
      {"open with O_TRUNC", sealed,
       [](On t) { return open(fd_path(getpid(), t.fd).c_str(), O_RDWR | O_TRUNC | O_CLOEXEC); }},
      {"fallocate, more", sealed, [](On t) { return fallocate(t.fd, 0, size_of(t.fd), kPage); }},
      {"fallocate, punch a hole", sealed,
       &reallocate<(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)>},
      {"fallocate, zero the range", unknown, &reallocate<FALLOC_FL_ZERO_RANGE>},
      {"fallocate, collapse the range", unknown, &reallocate<FALLOC_FL_COLLAPSE_RANGE>},
      {"fallocate, insert a range", unknown, &reallocate<FALLOC_FL_INSERT_RANGE>},
      {"ioctl FICLONE", unknown, [](On t) { return ioctl(t.fd, FICLONE, payload_file()); }},
      // Before Linux 6.6 memfds have no flags.
      {"ioctl FS_IOC_SETFLAGS, FS_NODUMP_FL", nothing | refused(ENOTTY),
       [](On t) {
         int flags = FS_NODUMP_FL;
         return ioctl(t.fd, FS_IOC_SETFLAGS, &flags);
       }},
      {"splice into it", sealed,
       [](On t) {
         off_t offset = t.offset;
         return splice(payload_pipe(), nullptr, t.fd, &offset, kPayloadSize, 0);
       }},
      {"sendfile into it", sealed,
       [](On t) {
         off_t from = 0;
         return sendfile(seek_words(t), payload_file(), &from, kPayloadSize);
       }},
      {"copy_file_range into it", sealed,
       [](On t) {
         off_t to = t.offset;
         off_t from = 0;
         return copy_file_range(payload_file(), &from, t.fd, &to, kPayloadSize, 0);
       }},
      {"splice its page into a pipe, then write to the pipe", nothing,
       [](On t) { return write(pipe_with_the_page(t)[1], payload(), 64); }},
      {"vmsplice its page as a gift, then write to the pipe", nothing,
       [](On t) {
         const auto ends = make_pipe();
         need(vmsplice(ends[1], words_of(t), 1, SPLICE_F_GIFT), "vmsplice");
         return write(ends[1], payload(), 64);
       }},
      {"fcntl F_ADD_SEALS, none", sealed, [](On t) { return fcntl(t.fd, F_ADD_SEALS, 0); }},
      {"fcntl F_ADD_SEALS, F_SEAL_GROW", sealed,
       [](On t) { return fcntl(t.fd, F_ADD_SEALS, F_SEAL_GROW); }},
      // Before Linux 6.3 a memfd cannot be kept from being executable.
      {"fchmod to executable", refused(EPERM) | nothing, [](On t) { return fchmod(t.fd, 0700); }},
  };
}

struct Ring : IoRing {
  Ring() : IoRing([](const char* call) { need(-1, call); }) {}

  long register_words(const Target& target) const {
    return syscall(SYS_io_uring_register, fd(), IORING_REGISTER_BUFFERS, words_of(target), 1);
  }
};

long read_fixed(const Target& target) {
  Ring ring;
  return ring.register_words(target) == -1
             ? -1
             : ring.run(IORING_OP_READ_FIXED, payload_file(), target.address, kPayloadSize);
}

// Past the page cache, straight from the disk.
long read_direct(const Target& target) {
  const int fd = need_descriptor(open("/tmp", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600),
                                 "O_DIRECT on /tmp");
  need(pwrite(fd, payload(), kPayloadSize, 0), "filling a file past the page cache");
  return syscall(SYS_preadv, fd, words_of(target), 1, 0L, 0L);
}

long receive(const Target& target) {
  std::array<int, 2> ends{};
  need(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends.data()), "socketpair");
  need(send(ends[1], payload(), kPayloadSize, 0), "send");
  msghdr message = {};
  message.msg_iov = const_cast<iovec*>(words_of(target));
  message.msg_iovlen = 1;
  return syscall(SYS_recvmsg, ends[0], &message, 0);
}

// A task in the attacker's memory, which has ended when this returns; it runs alone meanwhile.
long run_task(int flags, int (*body)(void*), const Target& target, std::byte* word) {
  alignas(64) static std::array<std::byte, 65536> stack{};
  const pid_t pid =
      clone(body, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | SIGCHLD | flags,
            const_cast<Target*>(&target), word, nullptr, word);
  if (pid == -1) return -1;
  need(waitpid(pid, nullptr, 0), "waitpid");
  return 0;
}

template <int Flag>
long have_thread_id_written(const Target& target) {
  return run_task(
      Flag, [](void*) { return static_cast<int>(syscall(SYS_exit, 0)); }, target,
      target.address + 64);
}

std::vector<Attack> attacks_through_the_kernel() {
  const Outcomes own = allowed(Effect::own_view);
  const Outcomes nothing = allowed(Effect::nothing);
  const Outcomes fault = refused(EFAULT);
  const Outcomes sealed = refused(EPERM);
  return {
      {"read into it", fault,
       [](On t) { return syscall(SYS_read, payload_file(), t.address, kPayloadSize); }, own},
      {"preadv into it", fault,
       [](On t) { return syscall(SYS_preadv, payload_file(), words_of(t), 1, 0L, 0L); }, own},
      {"read with O_DIRECT into it", fault, &read_direct, own},
      {"recvmsg into it", fault, &receive, own},
      {"vmsplice from a pipe into it", fault,
       [](On t) { return syscall(SYS_vmsplice, payload_pipe(), words_of(t), 1UL, 0); }, own},
      {"getrandom into it", fault, [](On t) { return syscall(SYS_getrandom, t.address, 256, 0); },
       own},
      {"io_uring, read into it", fault,
       [](On t) { return Ring().run(IORING_OP_READ, payload_file(), t.address, kPayloadSize); },
       own},
      {"io_uring, read into it as a registered buffer", fault, &read_fixed, own},
      {"io_uring, write to the descriptor", sealed,
       [](On t) { return Ring().run(IORING_OP_WRITE, t.fd, payload(), kPayloadSize, t.offset); }},
      {"futex FUTEX_WAKE_OP on a word", fault,
       [](On t) {
         std::uint32_t own_word = 0;
         return syscall(SYS_futex, &own_word, FUTEX_WAKE_OP, 0, nullptr, t.address,
                        FUTEX_OP(FUTEX_OP_SET, 0x7ee, FUTEX_OP_CMP_EQ, 0));
       },
       own},
      {"clone with CLONE_CHILD_SETTID", nothing, &have_thread_id_written<CLONE_CHILD_SETTID>, own},
      {"clone with CLONE_PARENT_SETTID", nothing, &have_thread_id_written<CLONE_PARENT_SETTID>,
       own},
      {"exit with clear_child_tid", nothing, &have_thread_id_written<CLONE_CHILD_CLEARTID>, own},
  };
}

long write_memory(const Target& target) {
  const std::string path = "/proc/" + std::to_string(target.victim) + "/mem";
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  const auto at = reinterpret_cast<std::intptr_t>(target.address);
  return fd < 0 ? -1 : pwrite(fd, payload(), kPayloadSize, at);
}

long poke(const Target& target) {
  if (ptrace(PTRACE_SEIZE, target.victim, nullptr, nullptr) == -1) return -1;
  need(ptrace(PTRACE_INTERRUPT, target.victim, nullptr, nullptr), "PTRACE_INTERRUPT");
  need(waitpid(target.victim, nullptr, __WALL), "waiting for the stop");
  const long result = ptrace(PTRACE_POKEDATA, target.victim, target.address, -1L);
  need(ptrace(PTRACE_DETACH, target.victim, nullptr, nullptr), "PTRACE_DETACH");
  return result;
}

int open_process(pid_t pid) {
  return need_descriptor(syscall(SYS_pidfd_open, pid, 0), "pidfd_open");
}

template <int Advice>
long advise_victim(const Target& target) {
  const iovec range = {target.address, target.size};
  return syscall(SYS_process_madvise, open_process(target.victim), &range, 1, Advice, 0);
}

long take_descriptor(const Target& target) {
  const auto fd =
      static_cast<int>(syscall(SYS_pidfd_getfd, open_process(target.owner), target.owners_fd, 0));
  return write_to(fd, target);
}

std::vector<Attack> attacks_on_a_sibling() {
  const bool may_trace = may_trace_a_sibling();
  const Outcomes victim = may_trace ? allowed(Effect::victims_view) : refused(EPERM);
  const Outcomes opened = may_trace ? allowed(Effect::victims_view) : refused(EACCES);
  const Outcomes nice = has_capability(CAP_SYS_NICE) ? allowed(Effect::nothing) : refused(EPERM);
  return {
      {"process_vm_writev", may_trace ? refused(EFAULT) : refused(EPERM),
       [](On t) { return process_vm_writev(t.victim, payload_vector(), 1, words_of(t), 1, 0); },
       victim},
      // As with /proc/self/mem.
      {"/proc/PID/mem", opened | refused(EIO), &write_memory, opened},
      {"ptrace, PTRACE_POKEDATA", victim, &poke},
      {"process_madvise, MADV_PAGEOUT", nice, &advise_victim<MADV_PAGEOUT>},
      {"pidfd_getfd, then pwrite", refused(EPERM), &take_descriptor},
  };
}

}  // namespace

std::function<long()> hold_for_a_later_write(const Target& target) {
  auto ring = std::make_shared<Ring>();
  need(ring->register_words(target), "registering a buffer");
  return [ring, to = target.address] {
    return ring->run(IORING_OP_READ_FIXED, payload_file(), to, kPayloadSize);
  };
}

std::vector<Attack> all_attacks() {
  std::vector<Attack> result;
  for (auto& group : {attacks_on_the_mapping(), attacks_on_the_file(), attacks_through_the_kernel(),
                      attacks_on_a_sibling()}) {
    result.insert(result.end(), group.begin(), group.end());
  }
  return result;
}

}  // namespace cowshed::test
