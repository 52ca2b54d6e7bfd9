#include <algorithm>
#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/undo/signal_handlers.h>

namespace cowshed::undo {
namespace {

using namespace size_literals;
using settling::MapsLine;

bool is_in_crash_handler() {
  sigset_t blocked;
  stack_t stack{};
  if (sigaltstack(nullptr, &stack) == 0 && (stack.ss_flags & SS_ONSTACK) != 0) return true;
  if (pthread_sigmask(SIG_SETMASK, nullptr, &blocked) != 0) return false;
  return sigismember(&blocked, SIGWINCH) == 0 &&  // Perl blocks all while it forks
         std::ranges::any_of(std::array{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP},
                             [&](int signal) { return sigismember(&blocked, signal) == 1; });
}

#ifdef __x86_64__
// As rt_sigaction(2) has it.
struct KernelAction {
  std::uintptr_t handler;
  unsigned long flags;
  std::uintptr_t restorer;
  std::uint64_t mask;
};

std::uintptr_t restorer_of_libc = 0;

// Where handlers return to: the C library's, of which none may be installed any more, and those
// that the program has installed otherwise.
std::array<std::uintptr_t, 2> restorers() {
  constexpr int kCancel = 32;  // of glibc; settle() has a handler for the next
  constexpr int kSetUsers = 33;
  std::array<std::uintptr_t, 2> found = {restorer_of_libc};
  for (int signal = 1; signal < NSIG; ++signal) {
    KernelAction action{};
    if (signal == kCancel || signal == kSetUsers ||
        syscall(SYS_rt_sigaction, signal, nullptr, &action, sizeof action.mask) != 0 ||
        action.handler <= 1 || action.restorer == found[0])
      continue;
    found[1] = action.restorer;
  }
  return found;
}

// A handler may have interrupted malloc(), whose locks fork() does not take in a process with one
// thread.  Its frame is on the stack, or was: then a fork is left alone for nothing.
bool is_on_a_handlers_frame() {
  constexpr std::size_t kMost = 8_MiB;
  // The address that the handler returns to, and the kernel's part of the context.
  constexpr std::size_t kFrame = sizeof(void*) + offsetof(ucontext_t, uc_mcontext.fpregs);
  constexpr std::uint16_t kUserCode = 0x33;
  const auto found = restorers();
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  std::uintptr_t end = here;
  std::array<char, 8192> buffer;
  settling::visit_maps(buffer, [&](const MapsLine& line) {
    if (line.range.begin <= here && here < line.range.end)
      end = std::min(line.range.end, here + kMost);
  });
  // Above them may lie the stack of another thread, and below that a guard page: those of glibc
  // 2.42 do not end a mapping (MADV_GUARD_INSTALL).
  const std::uintptr_t variables = settling::variables_of_this_thread().begin;
  if (here < variables) end = std::min(end, variables);
  for (std::uintptr_t at = here; at + kFrame <= end; at += sizeof at) {
    const auto* const frame = reinterpret_cast<const std::uintptr_t*>(at);
    if (frame[0] != found[0] && (frame[0] != found[1] || found[1] == 0)) continue;
    ucontext_t context;
    std::memcpy(&context, frame + 1, kFrame - sizeof at);
    const auto interrupted = static_cast<std::uintptr_t>(context.uc_mcontext.gregs[REG_RSP]);
    const auto segment = static_cast<std::uint16_t>(context.uc_mcontext.gregs[REG_CSGSFS]);
    if (segment == kUserCode && at < interrupted && interrupted < end) return true;
  }
  return false;
}
#else
bool is_on_a_handlers_frame() { return false; }
#endif

}  // namespace

void find_restorer_of_libc() {
#ifdef __x86_64__
  KernelAction before{};
  KernelAction ours{};
  struct sigaction action{};
  action.sa_handler = [](int) {};
  syscall(SYS_rt_sigaction, SIGURG, nullptr, &before, sizeof before.mask);
  sigaction(SIGURG, &action, nullptr);
  syscall(SYS_rt_sigaction, SIGURG, &before, &ours, sizeof before.mask);
  restorer_of_libc = ours.restorer;
#endif
}

bool is_in_signal_handler() { return is_in_crash_handler() || is_on_a_handlers_frame(); }

}  // namespace cowshed::undo
