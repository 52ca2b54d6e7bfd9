#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <poll.h>
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

using namespace internal;

namespace {

constexpr const char* kNothing = "arenas, channels and workers cannot be made";
constexpr const char* kNoFreeze = "arenas cannot be frozen";
constexpr const char* kNoChannels = "channels cannot be used";
constexpr const char* kNoWorkers = "workers cannot be started";
constexpr const char* kNoEndWithParent = "WorkersOptions::die_with_parent does not work";
constexpr const char* kNoExec = "Start::spawn and Start::forkserver do not work";
constexpr const char* kNoForkServer = "Start::forkserver does not work";

struct Environment {
  std::vector<RefusedCall> refused = {};

  // `result` is what the call returned; if it is negative, errno says why.
  bool check(const char* call, long result, const char* consequence) {
    if (result < 0) refused.push_back({call, errno, consequence});
    return result >= 0;
  }
  bool check(const char* call, const FileDescriptor& opened, const char* consequence) {
    return check(call, opened.get(), consequence);
  }

  void check_memory();
  void check_mapping(int memfd);
  void check_threads_and_waiting();
  void check_processes();
  void check_proc();
};

void Environment::check_memory() {
  const FileDescriptor memfd = make_memfd("cowshed-check", Sealable::yes);
  if (!check("memfd_create", memfd, kNothing)) return;
  const auto sized = set_file_size(memfd.get(), 2 * kHugePage, "check");
  if (!sized) refused.push_back({"ftruncate", sized.error().system_errno, kNothing});
  if (sized) {
    check("fallocate", fallocate(memfd.get(), 0, 0, kPage), kNothing);
    check("fallocate(FALLOC_FL_PUNCH_HOLE)",
          fallocate(memfd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPage), kNothing);
    check_mapping(memfd.get());
  }
  check("fcntl(F_OFD_SETLK)", lock_byte(memfd.get(), 0) == 0 ? 0 : -1, kNoChannels);
  check("fcntl(F_ADD_SEALS)", seal(memfd.get()) ? 0 : -1, kNothing);

  void* page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page != MAP_FAILED) {
    check("madvise(MADV_WIPEONFORK)", madvise(page, kPage, MADV_WIPEONFORK), kNoChannels);
    munmap(page, kPage);
  }
}

// Tries the calls for mappings on 2 MiB of a memfd.
void Environment::check_mapping(int memfd) {
  const std::size_t bytes = 2 * kHugePage;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
  if (!check("mmap(MAP_SHARED)", memory == MAP_FAILED ? -1 : 0, kNothing)) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(memory);
  const auto aligned = (begin + kHugePage - 1) & ~(kHugePage - 1);
  *reinterpret_cast<volatile char*>(aligned) = 1;
  check("madvise(MADV_DONTFORK)", madvise(memory, bytes, MADV_DONTFORK), kNothing);
  check("madvise(MADV_POPULATE_READ)", madvise(memory, kPage, MADV_POPULATE_READ),
        "Arena::prefault() fails");
  errno = collapse_range(aligned, kHugePage);
  // Other errors mean that there is no huge page now.
  check("madvise(MADV_COLLAPSE)", errno == EINVAL || errno == EPERM || errno == ENOSYS ? -1 : 0,
        "arenas have small pages: fork and the first reads take longer");
  check("madvise(MADV_REMOVE)", madvise(memory, bytes, MADV_REMOVE),
        "channels keep the memory of large messages");
  munmap(memory, bytes);
}

void Environment::check_threads_and_waiting() {
  check("membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)",
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0), kNoFreeze);
  check("membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)",
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0), kNoChannels);
  std::uint32_t word = 0;
  check("futex(FUTEX_WAKE)", futex_wake(&word, 1), kNothing);
  check("eventfd", FileDescriptor(eventfd(0, EFD_CLOEXEC)), "channels have no descriptor to poll");
}

void Environment::check_processes() {
  std::array<int, 2> ends = {-1, -1};
  check("socketpair(SOCK_SEQPACKET)",
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), kNoWorkers);
  const FileDescriptor first(ends[0]);
  const FileDescriptor second(ends[1]);
  msghdr nothing = {};
  if (check("sendmsg", sendmsg(first.get(), &nothing, MSG_NOSIGNAL), kNoWorkers))
    check("recvmsg", recvmsg(second.get(), &nothing, MSG_DONTWAIT), kNoWorkers);
  ucred peer = {};
  socklen_t size = sizeof peer;
  check("getsockopt(SO_PEERCRED)", getsockopt(first.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size),
        kNoExec);
  check("poll", poll(nullptr, 0, 0), kNoWorkers);
  const FileDescriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  if (check("pidfd_open", pidfd, kNoWorkers)) {
    check("pidfd_send_signal", syscall(SYS_pidfd_send_signal, pidfd.get(), 0, nullptr, 0),
          "workers are stopped by kill(), with their PIDs");
    siginfo_t info = {};
    const int waited =
        waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG | WNOWAIT);
    check("waitid(P_PIDFD)", waited != 0 && errno == ECHILD ? 0 : waited, kNoWorkers);
  }
  int signal = 0;
  if (check("prctl(PR_GET_PDEATHSIG)", prctl(PR_GET_PDEATHSIG, &signal), kNoEndWithParent))
    check("prctl(PR_SET_PDEATHSIG)", prctl(PR_SET_PDEATHSIG, signal), kNoEndWithParent);
  sigset_t none;
  sigemptyset(&none);
  check("signalfd", FileDescriptor(signalfd(-1, &none, SFD_CLOEXEC)), kNoForkServer);
  check("sigprocmask", sigprocmask(SIG_BLOCK, &none, nullptr), kNoForkServer);
  struct sigaction action = {};
  check("sigaction", sigaction(SIGSEGV, nullptr, &action), kNoFreeze);
  constexpr unsigned kFar = 0x7ffffff0;  // no process has such a descriptor
  check("close_range", syscall(SYS_close_range, kFar, kFar, 0),
        "Start::spawn closes descriptors one by one, which needs /proc");
}

void Environment::check_proc() {
  const auto check_open = [&](const std::string& path, int flags, const char* consequence) {
    const std::string call = "open(" + path + ")";
    check(call.c_str(), FileDescriptor(open(path.c_str(), flags | O_CLOEXEC)), consequence);
  };
  check_open("/proc/self/exe", O_PATH, kNoExec);
  check_open("/proc/self/fd", O_DIRECTORY, kNoChannels);
  check_open("/proc/self/task", O_DIRECTORY, "Start::fork cannot see that a process has threads");
  check_open("/proc/self/pagemap", O_RDONLY, "Arena::private_bytes() and refreeze() fail");
}

}  // namespace

std::vector<RefusedCall> check_environment() {
  Environment environment;
  environment.check_memory();
  environment.check_threads_and_waiting();
  environment.check_processes();
  environment.check_proc();
  return environment.refused;
}

}  // namespace cowshed
