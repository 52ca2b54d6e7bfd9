// What `cowshed run --warm` executes in the place of an interpreter whose program a zygote has
// forked.  It passes on signals and stops, and ends as the program does.  It takes no library, so
// that many of them take little memory.
//
// Descriptor 0 is the connection to the zygote.  All signals are blocked.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
static long call(long number, long a, long b, long c, long d, long e) {
  register long fourth __asm__("r10") = d;
  register long fifth __asm__("r8") = e;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
                   : "rcx", "r11", "memory");
  return result;
}
__asm__(".globl _start\n_start: xor %ebp, %ebp\nmov %rsp, %rdi\nand $-16, %rsp\ncall stand_in\n");
#elif defined(__aarch64__)
static long call(long number, long a, long b, long c, long d, long e) {
  register long result __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x8 __asm__("x8") = number;
  __asm__ volatile("svc 0" : "+r"(result) : "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x8) : "memory");
  return result;
}
__asm__(".globl _start\n_start: mov x29, xzr\nmov x0, sp\nbl stand_in\n");
#else
#error "the stub knows x86-64 and arm64"
#endif

typedef uint64_t SignalSet;  // the kernel's

enum { kConnection = 0 };

// From the zygote or, the first one, from the program.
struct Message {
  int32_t kind;
  int32_t value;   // a PID, a signal or an exit status
  int32_t zygote;  // of kStarts: its PID
  int32_t shares_group;
};
enum { kStarts = 'P', kStops = 'S', kExits = 'E', kIsKilled = 'K' };

struct PidfdInfo {  // linux/pidfd.h of 6.15
  uint64_t mask;
  uint64_t cgroup;
  uint32_t ids[11];
  int32_t exit_code;
};

static struct Message program;
static long canary;
static int to_canary;
static int signals;  // a signalfd of all
static int pidfd;    // the program's

static SignalSet set_of(int signal) { return (SignalSet)1 << (signal - 1); }

static void end_canary(void) {
  if (canary <= 0) return;
  call(SYS_close, to_canary, 0, 0, 0, 0);
  call(SYS_kill, canary, SIGCONT, 0, 0, 0);  // it may be stopped
  call(SYS_wait4, canary, 0, 0, 0, 0);
  canary = 0;
}

static _Noreturn void finish(int status) {
  end_canary();
  for (;;) call(SYS_exit_group, status, 0, 0, 0, 0);
}

// Does by default what the signal does.
static void raise_signal(int signal) {
  const struct {
    void* handler;
    unsigned long flags;
    void* restorer;
    SignalSet mask;
  } by_default = {0, 0, 0, 0};
  const SignalSet set = set_of(signal);
  call(SYS_rt_sigaction, signal, (long)&by_default, 0, sizeof set, 0);
  call(SYS_kill, call(SYS_getpid, 0, 0, 0, 0, 0), signal, 0, 0, 0);
  call(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&set, 0, sizeof set, 0);
  call(SYS_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, sizeof set, 0);
}

static _Noreturn void end_by(int signal) {
  const uint64_t none[2] = {0, 0};  // the core is the program's
  call(SYS_prlimit64, 0, RLIMIT_CORE, (long)none, 0, 0);
  end_canary();
  raise_signal(signal);
  finish(128 + signal);
}

// A process of this one's group that takes no signals: one that it has, too, was sent to the group.
// If this one is killed alone, it tells the zygote.
static _Noreturn void be_canary(int end) {
  unsigned char signal;
  while (call(SYS_read, end, (long)&signal, 1, 0, 0) == 1) {
    const SignalSet set = set_of(signal);
    const int64_t at_once[2] = {0, 0};
    const char has = call(SYS_rt_sigtimedwait, (long)&set, 0, (long)at_once, sizeof set, 0) > 0;
    call(SYS_write, end, (long)&has, 1, 0, 0);
  }
  call(SYS_write, kConnection, (long)"k", 1, 0, 0);
  canary = 0;
  finish(0);
}

static bool is_for_the_group(int signal) {
  const unsigned char number = (unsigned char)signal;
  char has = 0;
  if (canary > 0 && call(SYS_write, to_canary, (long)&number, 1, 0, 0) == 1)
    call(SYS_read, to_canary, (long)&has, 1, 0, 0);
  return has;
}

static void pass_on_signals(void) {
  struct signalfd_siginfo info;
  while (call(SYS_read, signals, (long)&info, sizeof info, 0, 0) == sizeof info) {
    const int signal = (int)info.ssi_signo;
    const bool is_for_all = is_for_the_group(signal);
    const bool is_from_zygote = signal == SIGCONT && (int)info.ssi_pid == program.zygote;
    if (is_from_zygote || (is_for_all && program.shares_group)) continue;
    if (is_for_all) call(SYS_kill, -program.value, signal, 0, 0, 0);
    else call(SYS_pidfd_send_signal, pidfd, signal, 0, 0, 0);
  }
}

static void pass_on_until_readable(int file) {
  struct pollfd both[2];
  do {
    pass_on_signals();
    both[0] = (struct pollfd){file, POLLIN, 0};
    both[1] = (struct pollfd){signals, POLLIN, 0};
    call(SYS_ppoll, (long)both, 2, 0, 0, 0);
  } while (both[0].revents == 0);
}

static bool receive(struct Message* message) {
  char* at = (char*)message;
  for (size_t had = 0; had < sizeof *message;) {
    const long count =
        call(SYS_read, kConnection, (long)(at + had), (long)(sizeof *message - had), 0, 0);
    if (count <= 0) return false;
    had += (size_t)count;
  }
  return true;
}

// The zygote was killed.  Linux 6.15 tells how the program ends all the same, once its new parent
// has reaped it.
static _Noreturn void end_without_zygote(void) {
  const int64_t millisecond[2] = {0, 1000000};
  pass_on_until_readable(pidfd);
  for (int tries = 0; tries < 3000; tries++) {
    struct PidfdInfo its = {.mask = 1 << 3};              // PIDFD_INFO_EXIT
    const long get_info = 0xc000ff0b | sizeof its << 16;  // PIDFD_GET_INFO
    const long error = call(SYS_ioctl, pidfd, get_info, (long)&its, 0, 0);
    if (error == 0 && (its.mask & 1 << 3) != 0) {
      if ((its.exit_code & 0x7f) != 0) end_by(its.exit_code & 0x7f);
      finish(its.exit_code >> 8 & 0xff);
    }
    if (error != 0 && error != -ESRCH) break;  // ESRCH: it is being reaped
    call(SYS_nanosleep, (long)millisecond, 0, 0, 0, 0);
  }
  finish(125);
}

static void name_process(const char* path) {
  const char* name = path;
  for (const char* at = path; *at != 0; at++)
    if (*at == '/') name = at + 1;
  call(SYS_prctl, PR_SET_NAME, (long)name, 0, 0, 0);
}

// Lets the program go on, which waits for it.
static bool go_on(void) { return call(SYS_write, kConnection, (long)"g", 1, 0, 0) == 1; }

// So that who looks for the program's command line finds the stub alone.
static void hide_command_line(long* stack) {
  if (stack[0] < 1) return;
  char* const begin = (char*)stack[1];
  char* end = (char*)stack[stack[0]];
  while (*end != 0) end++;
  for (char* at = begin; at < end; at++) *at = 0;
  const char name[] = "cowshed";
  for (size_t i = 0; i < sizeof name - 1 && begin + i < end; i++) begin[i] = name[i];
  call(SYS_prctl, PR_SET_NAME, (long)name, 0, 0, 0);
}

static void start_canary(long* stack) {
  int ends[2];
  if (call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET, 0, (long)ends, 0) != 0) return;
  canary = call(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  call(SYS_close, ends[canary == 0 ? 0 : 1], 0, 0, 0, 0);
  if (canary == 0) {
    hide_command_line(stack);
    be_canary(ends[1]);
  }
  to_canary = ends[0];
}

__attribute__((used)) _Noreturn void stand_in(long* stack) {
  if (stack[0] > 0) name_process((const char*)stack[1]);
  call(SYS_close_range, 1, ~0U, 0, 0, 0);
  start_canary(stack);
  const SignalSet all = ~(SignalSet)0;
  signals = (int)call(SYS_signalfd4, -1, (long)&all, sizeof all, SFD_NONBLOCK, 0);
  if (!go_on() || !receive(&program)) finish(125);
  pidfd = (int)call(SYS_pidfd_open, program.value, 0, 0, 0, 0);
  pass_on_signals();  // that were sent before
  go_on();
  for (struct Message message;;) {
    pass_on_until_readable(kConnection);
    if (!receive(&message)) end_without_zygote();
    switch (message.kind) {
      case kStops: raise_signal(message.value); break;
      case kIsKilled: end_by(message.value);
      default: finish(message.value);
    }
  }
}
