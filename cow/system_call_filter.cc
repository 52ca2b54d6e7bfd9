#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <vector>

#include <cowshed/cow/system_call_filter.h>

namespace cowshed::cow {
namespace {

using FilterStep = sock_filter;

constexpr std::array kAllowed = {
    SYS_read,         SYS_pread64,     SYS_lseek,     SYS_close,          SYS_fstat,
    SYS_recvmsg,      SYS_sendmsg,     SYS_munmap,    SYS_mremap,         SYS_madvise,
    SYS_brk,          SYS_futex,       SYS_setitimer, SYS_clock_gettime,  SYS_getpid,
    SYS_gettid,       SYS_sched_yield, SYS_getrandom, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_rt_sigaction, SYS_sigaltstack, SYS_exit,      SYS_exit_group,     SYS_fcntl,
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    SYS_pipe2,        SYS_write,  // by which a sanitizer finds whether memory can be read
#endif
};

constexpr FilterStep load(std::size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset));
}

constexpr FilterStep skip_unless_equal(std::uint32_t value, std::uint8_t skipped) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skipped);
}

constexpr FilterStep skip_if_set(std::uint32_t bits, std::uint8_t skipped) {
  return BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, skipped, 0);
}

constexpr FilterStep result(std::uint32_t value) { return BPF_STMT(BPF_RET | BPF_K, value); }

constexpr std::size_t low_half_of_argument(std::size_t number) {
  return offsetof(seccomp_data, args) + number * sizeof(std::uint64_t);
}

}  // namespace

bool filter_system_calls() {
  constexpr FilterStep kAllow = result(SECCOMP_RET_ALLOW);
  constexpr FilterStep kRefuse = result(SECCOMP_RET_ERRNO | EPERM);
  std::vector<FilterStep> program = {
      load(offsetof(seccomp_data, arch)), skip_unless_equal(AUDIT_ARCH_X86_64, 1),
      BPF_STMT(BPF_JMP | BPF_JA, 1), result(SECCOMP_RET_KILL_PROCESS),
      load(offsetof(seccomp_data, nr))};
  for (const long number : kAllowed) {
    program.push_back(skip_unless_equal(static_cast<std::uint32_t>(number), 1));
    program.push_back(kAllow);
  }
  // Memory that holds no code.
  for (const long number : {SYS_mmap, SYS_mprotect}) {
    program.push_back(skip_unless_equal(static_cast<std::uint32_t>(number), 4));
    program.push_back(load(low_half_of_argument(2)));
    program.push_back(skip_if_set(PROT_EXEC, 1));
    program.push_back(kAllow);
    program.push_back(kRefuse);
  }
  // fstat(), as the C library has it; no path.
  program.push_back(skip_unless_equal(SYS_newfstatat, 3));
  program.push_back(load(low_half_of_argument(3)));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, AT_EMPTY_PATH, 0, 1));
  program.push_back(kAllow);
  program.push_back(kRefuse);
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace cowshed::cow
