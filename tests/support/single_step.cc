#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unordered_set>

#include <cowshed/tests/support/single_step.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {
namespace {

struct Instruction {
  std::uint64_t bits;
  std::uint64_t mask;
};

// mark(): the tracer sees SIGTRAP with kMarked, which no single step raises.
#ifdef __x86_64__
constexpr int kMarked = SI_KERNEL;
void mark() { asm volatile("int3" ::: "memory"); }

constexpr Instruction kSystemCall = {0x050f, 0xffff};
constexpr Instruction kBreakpoint = {0xcc, 0xff};
constexpr std::uint64_t kPastBreakpoint = 1;  // where it stops
auto& counter_of(user_regs_struct& registers) { return registers.rip; }
#else
// A breakpoint would be met again and again.
constexpr int kMarked = SI_TKILL;
void mark() {
  register long process asm("x0") = getpid();
  register long thread asm("x1") = process;
  register long signal asm("x2") = SIGTRAP;
  register long call asm("x8") = SYS_tgkill;
  asm volatile("svc #0" : "+r"(process) : "r"(thread), "r"(signal), "r"(call) : "memory");
}

constexpr Instruction kSystemCall = {0xd4000001, 0xffffffff};
constexpr Instruction kBreakpoint = {0xd4200000, 0xffffffff};
constexpr std::uint64_t kPastBreakpoint = 0;
auto& counter_of(user_regs_struct& registers) { return registers.pc; }
#endif

bool is_at_mark(pid_t pid) {
  siginfo_t info{};
  return ptrace(PTRACE_GETSIGINFO, pid, nullptr, &info) == 0 && info.si_signo == SIGTRAP &&
         info.si_code == kMarked;
}

user_regs_struct registers_of(pid_t pid) {
  user_regs_struct registers{};
  iovec to = {&registers, sizeof registers};
  if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &to) != 0)
    throw std::runtime_error("PTRACE_GETREGSET");
  return registers;
}

bool is_system_call(pid_t pid, std::uintptr_t pc) {
  const auto text = static_cast<std::uint64_t>(ptrace(PTRACE_PEEKTEXT, pid, pc, nullptr));
  return (text & kSystemCall.mask) == kSystemCall.bits;
}

// Not inlined, and nothing but the call: entry and return are those of `action`.
[[gnu::noinline]] void run_stepped(const std::function<void()>& action) {
  mark();
  action();
  mark();
}

[[noreturn]] void run_child(const SteppedChild::Body& body) {
  // Once no longer traced it meets the second mark alone.
  std::signal(SIGTRAP, [](int) {});
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(EXIT_FAILURE);
  body.before();
  run_stepped(body.action);
  body.after();
  _exit(EXIT_SUCCESS);
}

int wait_for(pid_t pid, int options) {
  int status = 0;
  while (waitpid(pid, &status, options) < 0)
    if (errno != EINTR) throw std::runtime_error("waitpid");
  return status;
}

}  // namespace

SteppedChild::SteppedChild(const Body& body) : pid_(fork()) {
  if (pid_ == 0) run_child(body);
  if (pid_ < 0) throw std::runtime_error("fork");
  traced_ = true;
  for (;;) {
    wait_for_stop();
    if (is_at_mark(pid_)) return;
    ptrace(PTRACE_CONT, pid_, nullptr, nullptr);  // some other signal
  }
}

SteppedChild::~SteppedChild() { kill(); }

void SteppedChild::wait_for_stop() {
  const int status = wait_for(pid_, 0);
  if (!WIFSTOPPED(status)) {
    pid_ = -1;
    throw std::runtime_error("the traced child has ended; is ptrace(2) allowed?");
  }
}

std::size_t SteppedChild::step(std::size_t count) {
  for (std::size_t done = 0; done < count; ++done) {
    if (returned_) return done;
    if (ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr) != 0)
      throw std::runtime_error("PTRACE_SINGLESTEP");
    wait_for_stop();
    returned_ = is_at_mark(pid_);
    if (returned_) return done;
  }
  return count;
}

SteppedChild::Path SteppedChild::run_stepped(const std::function<std::uint64_t()>& seen) {
  Path path;
  std::unordered_set<std::uintptr_t> been;
  bool called = false;
  std::uint64_t last_seen = seen();
  for (bool more = true; more; step(1)) {
    more = !returned_;
    user_regs_struct registers = registers_of(pid_);
    const std::uintptr_t pc = counter_of(registers);
    path.counters.push_back(pc);
    path.newest.push_back(been.insert(pc).second ? path.newest.size() : path.newest.back());
    const std::uint64_t now_seen = seen();
    path.changed.push_back(called || now_seen != last_seen);
    last_seen = now_seen;
    called = is_system_call(pid_, pc);
  }
  return path;
}

bool SteppedChild::step_along(const Path& path, std::size_t count) {
  // The return itself is a mark, not a place to put a breakpoint on.
  const std::size_t newest = path.newest[std::min(count, path.size() - 2)];
  if (newest > 0 && !run_to(path.counters[newest])) return false;
  step(count - newest);
  return true;
}

bool SteppedChild::run_to(std::uintptr_t pc) {
  errno = 0;
  const long text = ptrace(PTRACE_PEEKTEXT, pid_, pc, nullptr);
  if (errno != 0 ||
      ptrace(PTRACE_POKETEXT, pid_, pc,
             (static_cast<std::uint64_t>(text) & ~kBreakpoint.mask) | kBreakpoint.bits) != 0) {
    throw std::runtime_error("PTRACE_POKETEXT");
  }
  ptrace(PTRACE_CONT, pid_, nullptr, nullptr);
  wait_for_stop();
  user_regs_struct registers = registers_of(pid_);
  if (counter_of(registers) != pc + kPastBreakpoint) {
    returned_ = true;
    return false;
  }
  ptrace(PTRACE_POKETEXT, pid_, pc, text);
  counter_of(registers) = pc;
  iovec from = {&registers, sizeof registers};
  ptrace(PTRACE_SETREGSET, pid_, NT_PRSTATUS, &from);
  return true;
}

void SteppedChild::kill() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    wait_for(pid_, 0);
    pid_ = -1;
  }
}

void SteppedChild::stop() {
  // The signal that it is handed on detaching stops it.
  if (ptrace(PTRACE_DETACH, pid_, nullptr, SIGSTOP) != 0) throw std::runtime_error("PTRACE_DETACH");
  traced_ = false;
  wait_for(pid_, WUNTRACED);
}

int SteppedChild::go_on() {
  if (traced_) {
    ptrace(PTRACE_DETACH, pid_, nullptr, 0);
    traced_ = false;
  } else {
    ::kill(pid_, SIGCONT);
  }
  const int status = wait_for(pid_, 0);
  pid_ = -1;
  return status;
}

}  // namespace cowshed::test
