#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/environment.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/os/sync.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14
#endif

namespace cowshed {
namespace {

constexpr const char* kNothing = "arenas, channels and workers cannot be made";
constexpr const char* kNoArenas = "arenas cannot be made";
constexpr const char* kNoFreeze = "arenas cannot be frozen";
constexpr const char* kNoChannels = "channels cannot be used";
constexpr const char* kNoWorkers = "workers cannot be started";
constexpr const char* kNoForkServer = "Start::forkserver does not work";

class Environment {
 public:
  // `result` is what the call returned; if it is negative, errno says why.
  bool check(const char* call, long result, const char* consequence) {
    if (result < 0) refused_.push_back({call, errno, consequence});
    return result >= 0;
  }
  bool check(const char* call, const FileDescriptor& opened, const char* consequence) {
    return check(call, opened.get(), consequence);
  }
  std::vector<RefusedCall> take() { return std::move(refused_); }

 private:
  std::vector<RefusedCall> refused_;
};

// Tries the calls for mappings on 2 MiB of a memfd.
void check_mapping(Environment& environment, int memfd) {
  const std::size_t bytes = 2 * kHugePage;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
  if (!environment.check("mmap(MAP_SHARED)", memory == MAP_FAILED ? -1 : 0, kNothing)) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(memory);
  const auto aligned = (begin + kHugePage - 1) & ~(kHugePage - 1);
  *reinterpret_cast<volatile char*>(aligned) = 1;
  environment.check("madvise(MADV_DONTFORK)", madvise(memory, bytes, MADV_DONTFORK), kNothing);
  environment.check("madvise(MADV_POPULATE_READ)",
                    madvise(memory, static_cast<std::size_t>(getpagesize()), MADV_POPULATE_READ),
                    "Arena::prefault() fails");
  errno = collapse_range(aligned, kHugePage);
  // Other errors mean that there is no huge page now.
  environment.check("madvise(MADV_COLLAPSE)",
                    errno == EINVAL || errno == EPERM || errno == ENOSYS ? -1 : 0,
                    "arenas have small pages: fork and the first reads take longer");
  environment.check("madvise(MADV_REMOVE)", madvise(memory, bytes, MADV_REMOVE),
                    "channels keep the memory of large messages");
  munmap(memory, bytes);
}

void check_memory(Environment& environment) {
  const FileDescriptor memfd = make_memfd("cowshed-check", Sealable::yes);
  if (!environment.check("memfd_create", memfd, kNothing)) return;
  const auto bytes = static_cast<off_t>(2 * kHugePage);
  const bool has_size = environment.check("ftruncate", ftruncate(memfd.get(), bytes), kNothing);
  environment.check("fallocate", fallocate(memfd.get(), 0, 0, getpagesize()), kNothing);
  environment.check(
      "fallocate(FALLOC_FL_PUNCH_HOLE)",
      fallocate(memfd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, getpagesize()),
      kNothing);
  if (has_size) check_mapping(environment, memfd.get());
  const bool locked = internal::lock_byte(memfd.get(), 0);
  environment.check("fcntl(F_OFD_SETLK)", locked ? 0 : -1, kNoChannels);
  environment.check("fcntl(F_ADD_SEALS)", seal(memfd.get()) ? 0 : -1, kNothing);

  void* page = mmap(nullptr, static_cast<std::size_t>(getpagesize()), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page != MAP_FAILED) {
    environment.check("madvise(MADV_WIPEONFORK)",
                      madvise(page, static_cast<std::size_t>(getpagesize()), MADV_WIPEONFORK),
                      kNoChannels);
    munmap(page, static_cast<std::size_t>(getpagesize()));
  }
}

void check_threads_and_waiting(Environment& environment) {
  environment.check("membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)",
                    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0),
                    kNoFreeze);
  environment.check("membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)",
                    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0),
                    kNoChannels);
  std::uint32_t word = 0;
  environment.check("futex(FUTEX_WAKE)", internal::futex_wake(&word, 1), kNothing);
  environment.check("eventfd", FileDescriptor(eventfd(0, EFD_CLOEXEC)),
                    "channels have no descriptor to poll");
}

void check_processes(Environment& environment) {
  std::array<int, 2> ends = {-1, -1};
  environment.check("socketpair(SOCK_SEQPACKET)",
                    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), kNoWorkers);
  const FileDescriptor first(ends[0]);
  const FileDescriptor second(ends[1]);
  const FileDescriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  if (environment.check("pidfd_open", pidfd, kNoWorkers)) {
    environment.check("pidfd_send_signal",
                      syscall(SYS_pidfd_send_signal, pidfd.get(), 0, nullptr, 0),
                      "workers are stopped by kill(), with their PIDs");
    siginfo_t info = {};
    const int waited =
        waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG | WNOWAIT);
    environment.check("waitid(P_PIDFD)", waited != 0 && errno == ECHILD ? 0 : waited, kNoWorkers);
  }
  int signal = 0;
  if (environment.check("prctl(PR_GET_PDEATHSIG)", prctl(PR_GET_PDEATHSIG, &signal),
                        "WorkersOptions::die_with_parent does not work")) {
    environment.check("prctl(PR_SET_PDEATHSIG)", prctl(PR_SET_PDEATHSIG, signal),
                      "WorkersOptions::die_with_parent does not work");
  }
  sigset_t none;
  sigemptyset(&none);
  environment.check("signalfd", FileDescriptor(signalfd(-1, &none, SFD_CLOEXEC)), kNoForkServer);
  constexpr unsigned kFar = 0x7ffffff0;  // no process has such a descriptor
  environment.check("close_range", syscall(SYS_close_range, kFar, kFar, 0),
                    "Start::spawn closes descriptors one by one, which needs /proc");
}

void check_proc(Environment& environment) {
  environment.check("open(/proc/self/exe)",
                    FileDescriptor(open("/proc/self/exe", O_PATH | O_CLOEXEC)),
                    "Start::spawn and Start::forkserver do not work");
  environment.check("open(/proc/self/fd)",
                    FileDescriptor(open("/proc/self/fd", O_DIRECTORY | O_CLOEXEC)), kNoChannels);
  environment.check("open(/proc/self/task)",
                    FileDescriptor(open("/proc/self/task", O_DIRECTORY | O_CLOEXEC)),
                    "Start::fork cannot see that a process has threads");
  environment.check("open(/proc/self/pagemap)",
                    FileDescriptor(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)),
                    "Arena::private_bytes() and refreeze() fail");
}

}  // namespace

std::vector<RefusedCall> check_environment() {
  Environment environment;
  check_memory(environment);
  check_threads_and_waiting(environment);
  check_processes(environment);
  check_proc(environment);
  return environment.take();
}

}  // namespace cowshed
