#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <cowshed/base/clock.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/sandbox/helper_process.h>

namespace cowshed::cow {
namespace {

using Clock = std::chrono::steady_clock;

// Beyond what there is at the start.  The address space is large, because files are mapped whole.
constexpr rlim_t kMostMappedBytes = rlim_t{4} << 30U;
constexpr rlim_t kMostDataBytes = rlim_t{1} << 30U;
constexpr rlim_t kMostDescriptors = 64;

// A control message with one descriptor.
union Control {
  cmsghdr header;
  std::array<char, CMSG_SPACE(sizeof(int))> bytes;
};

// cowtop blocks the signals that ask it to end, so that they wait until it looks.
bool is_end_asked_for() {
  sigset_t pending;
  if (::sigpending(&pending) != 0) return false;
  const std::array<int, 4> signals = {SIGINT, SIGTERM, SIGQUIT, SIGHUP};
  return std::ranges::any_of(signals,
                             [&](int signal) { return ::sigismember(&pending, signal) == 1; });
}

// Makes the socket descriptor 0, and closes all others.
void keep_only(int socket) {
  ::dup2(socket, 0);
  ::syscall(SYS_close_range, 1U, ~0U, 0U);
}

void limit(__rlimit_resource what, rlim_t most) {
  rlimit limits{};
  ::getrlimit(what, &limits);
  limits.rlim_cur = limits.rlim_max = std::min(limits.rlim_max, most);
  ::setrlimit(what, &limits);
}

// A sanitizer has reserved terabytes at the start.
void limit_memory() {
  const auto stat = ProcFiles().stat(::getpid());
  if (!stat) return;
  limit(RLIMIT_AS, stat->virtual_bytes + kMostMappedBytes);
  const auto data_kib = ProcFiles().status_number(::getpid(), "VmData");  // 0: not known
  if (data_kib != 0) limit(RLIMIT_DATA, data_kib * 1024 + kMostDataBytes);
}

void drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, 2> none{};
  ::syscall(SYS_capset, &header, none.data());
}

using FilterStep = sock_filter;

#ifdef __x86_64__
constexpr std::uint32_t kThisCpu = AUDIT_ARCH_X86_64;
#else
constexpr std::uint32_t kThisCpu = AUDIT_ARCH_AARCH64;
#endif

constexpr std::array kAllowed = {
    SYS_read,         SYS_pread64,     SYS_lseek,     SYS_close,          SYS_fstat,
    SYS_recvmsg,      SYS_sendmsg,     SYS_munmap,    SYS_mremap,         SYS_madvise,
    SYS_brk,          SYS_futex,       SYS_setitimer, SYS_clock_gettime,  SYS_getpid,
    SYS_gettid,       SYS_sched_yield, SYS_getrandom, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_rt_sigaction, SYS_sigaltstack, SYS_exit,      SYS_exit_group,     SYS_fcntl,
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    SYS_pipe2,        SYS_write,  // a sanitizer tests by them whether memory is readable
#endif
};

constexpr FilterStep load(std::size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset));
}

// Each skips so many of the steps that follow.
constexpr FilterStep skip_if_equal(std::uint32_t value, std::uint8_t steps) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, steps, 0);
}
constexpr FilterStep skip_unless_equal(std::uint32_t value, std::uint8_t steps) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, steps);
}
constexpr FilterStep skip_if_set(std::uint32_t bits, std::uint8_t steps) {
  return BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, steps, 0);
}
constexpr FilterStep skip_unless_set(std::uint32_t bits, std::uint8_t steps) {
  return BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, steps);
}

constexpr FilterStep result(std::uint32_t value) { return BPF_STMT(BPF_RET | BPF_K, value); }

constexpr std::size_t low_half_of_argument(std::size_t number) {
  return offsetof(seccomp_data, args) + number * sizeof(std::uint64_t);
}

// From here on this thread can compute, use memory, read the descriptors that it has or is sent,
// and answer.  Every other system call fails with EPERM; one by the interface of another
// architecture ends the process.  Needs no_new_privs.
//
// A step that loads an argument overwrites the call's number, so steps that end the filter follow
// it.
bool filter_system_calls() {
  constexpr FilterStep kAllow = result(SECCOMP_RET_ALLOW);
  constexpr FilterStep kRefuse = result(SECCOMP_RET_ERRNO | EPERM);
  std::vector<FilterStep> program = {load(offsetof(seccomp_data, arch)), skip_if_equal(kThisCpu, 1),
                                     result(SECCOMP_RET_KILL_PROCESS),
                                     load(offsetof(seccomp_data, nr))};
  for (const long number : kAllowed) {
    program.push_back(skip_unless_equal(static_cast<std::uint32_t>(number), 1));
    program.push_back(kAllow);
  }
  constexpr std::size_t kProtection = 2;  // of both calls, the third argument
  for (const long number : {SYS_mmap, SYS_mprotect}) {
    program.push_back(skip_unless_equal(static_cast<std::uint32_t>(number), 4));
    program.push_back(load(low_half_of_argument(kProtection)));
    program.push_back(skip_if_set(PROT_EXEC, 1));
    program.push_back(kAllow);
    program.push_back(kRefuse);
  }
  // The C library makes it of fstat().  With another path than "", which the filter cannot see, it
  // tells a file's metadata, as far as nobody may know them.
  constexpr std::size_t kFlags = 3;
  program.push_back(skip_unless_equal(SYS_newfstatat, 3));
  program.push_back(load(low_half_of_argument(kFlags)));
  program.push_back(skip_unless_set(AT_EMPTY_PATH, 1));
  program.push_back(kAllow);
  program.push_back(kRefuse);
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Returns whether system calls are filtered.  Every other step may be refused, as in containers.
bool drop_rights() {
  // A program of the same user could stop or kill this process, so it has one of its own.  systemd
  // assigns no users from here on (systemd.io/UIDS-GIDS).
  constexpr uid_t kUnusedUsers = 0x70000000;
  constexpr uid_t kNobody = 65534;
  const uid_t own = kUnusedUsers + static_cast<uid_t>(::getpid());
  limit_memory();
  limit(RLIMIT_NOFILE, kMostDescriptors);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_FSIZE, 0);
  if (::geteuid() == 0) {  // nobody else may become another user
    (void)::setgroups(0, nullptr);
    for (const uid_t id : {own, kNobody}) {  // a user namespace may have few users
      (void)::setresgid(id, id, id);
      if (::setresuid(id, id, id) == 0) break;
    }
  }
  drop_capabilities();
  ::prctl(PR_SET_DUMPABLE, 0);
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && filter_system_calls();
}

// Ctrl-C goes to all processes of the terminal.  cowtop handles it, and then closes the socket,
// which ends this one.
void reset_signals() {
  for (const int signal : {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM, SIGPROF})
    ::signal(signal, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace

bool HelperSocket::send(std::string_view bytes, int fd) const {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Control control{};
  if (fd >= 0) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.bytes.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  const ssize_t sent = TEMP_FAILURE_RETRY(::sendmsg(fd_, &message, MSG_NOSIGNAL));
  return sent == static_cast<ssize_t>(bytes.size());
}

std::optional<HelperSocket::Message> HelperSocket::receive() const {
  std::array<char, kMostBytes> buffer;
  Message received;
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Control control{};
  message.msg_control = control.bytes.data();
  message.msg_controllen = CMSG_LEN(sizeof(int));  // with its padding there is room for a second
  const ssize_t got = TEMP_FAILURE_RETRY(::recvmsg(fd_, &message, MSG_CMSG_CLOEXEC));
  const cmsghdr* header = got < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  // Owned before the message is judged, so that none that is refused leaves it open.
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    received.file = FileDescriptor(fd);
  }
  if (got <= 0 || (message.msg_flags & MSG_TRUNC) != 0) return std::nullopt;
  received.bytes.assign(buffer.data(), static_cast<std::size_t>(got));
  return received;
}

std::unique_ptr<HelperProcess> HelperProcess::start(const char* name, Rights rights,
                                                    const Serve& serve) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return nullptr;
  const pid_t pid = ::fork();
  if (pid == 0) {
    reset_signals();
    ::prctl(PR_SET_NAME, name);
    keep_only(ends[1]);
    if (rights == Rights::none && !drop_rights()) ::_exit(1);
    // An exception, of a lack of memory say, must not go on into what the parent does.
    [&]() noexcept { serve(HelperSocket(0)); }();
    ::_exit(0);
  }
  ::close(ends[1]);
  if (pid > 0) return std::unique_ptr<HelperProcess>(new HelperProcess(pid, ends[0]));
  ::close(ends[0]);
  return nullptr;
}

HelperProcess::~HelperProcess() {
  constexpr int kAttempts = 20;
  constexpr auto kBetweenLooksUs = 500;
  ::close(socket_.fd());
  ::kill(pid_, SIGKILL);
  for (int attempt = 0; attempt < kAttempts && ::waitpid(pid_, nullptr, WNOHANG) == 0; ++attempt)
    ::usleep(kBetweenLooksUs);
}

std::uint64_t HelperProcess::cpu_ns() const {
  clockid_t clock{};
  return ::clock_getcpuclockid(pid_, &clock) == 0 ? clock_ns(clock) : 0;
}

// Not running: it waits, is stopped, or has ended.
bool HelperProcess::is_asleep() const {
  const auto stat = ProcFiles().stat(pid_);
  return stat && stat->state != 'R';
}

std::optional<HelperSocket::Message> HelperProcess::receive(
    std::chrono::milliseconds most, std::chrono::milliseconds most_asleep) const {
  constexpr std::chrono::milliseconds kBetweenLooks{100};
  constexpr std::chrono::milliseconds kOnceWeEnd{500};  // of all that is asked until we have ended
  static std::optional<Clock::time_point> end_of_all;
  auto deadline = Clock::now() + most;
  auto last_awake = Clock::now();
  while (true) {
    pollfd wanted{socket_.fd(), POLLIN, 0};
    if (::poll(&wanted, 1, static_cast<int>(kBetweenLooks.count())) > 0) return socket_.receive();
    const auto now = Clock::now();
    if (!is_asleep()) last_awake = now;
    if (!is_end_asked_for()) end_of_all.reset();
    else if (!end_of_all) end_of_all = now + kOnceWeEnd;
    if (end_of_all) deadline = std::min(deadline, *end_of_all);
    if (now >= deadline || now - last_awake >= most_asleep) return std::nullopt;
  }
}

}  // namespace cowshed::cow
