#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/share/settle/interrupted_calls.h>
#include <cowshed/share/settle/thread_stopper.h>

namespace cowshed::settling {
namespace {

constexpr int kSignal = 33;  // SIGSETXID, which glibc leaves out of every signal mask
constexpr std::size_t kMostThreads = 32768;

// As the kernel has it; glibc's sigaction() refuses this signal.
struct KernelAction {
  void (*handler)(int, siginfo_t*, void*);
  unsigned long flags;
  void (*restorer)();
  std::uint64_t mask;
};

long set_action(const KernelAction* action, KernelAction* before) {
  return syscall(SYS_rt_sigaction, kSignal, action, before, sizeof(std::uint64_t));
}

// Mapped once, and kept: a thread that did not stop in time may get the signal at any time.
struct State {
  std::uint32_t closed;  // the number of the stop; 0: threads may run.  A futex.
  std::uint32_t last_number;
  std::array<std::uint32_t, kMostThreads> stopped;  // the number of the stop, of each thread
  std::array<pid_t, kMostThreads> threads;
  std::array<arch::SystemCall, kMostThreads> calls;  // in which each thread waited
  std::array<char, 32768> entries;
};

std::atomic<State*> the_state;
KernelAction glibc_action;

// Whether one waits that the program handles: then the call fails with EINTR, as it does without
// us.
bool has_other_signal(const void* context) {
  std::uint64_t pending = 0;
  std::uint64_t blocked = 0;
  std::memcpy(&blocked, &static_cast<const ucontext_t*>(context)->uc_sigmask, sizeof blocked);
  syscall(SYS_rt_sigpending, &pending, sizeof pending);
  return (pending & ~blocked & ~(std::uint64_t{1} << (kSignal - 1U))) != 0;
}

void on_signal(int signal, siginfo_t* info, void* context) {
  if (info->si_code != SI_QUEUE) {  // not ours
    if ((glibc_action.flags & SA_SIGINFO) != 0 && glibc_action.handler != nullptr)
      glibc_action.handler(signal, info, context);
    return;
  }
  const auto value = reinterpret_cast<std::uintptr_t>(info->si_value.sival_ptr);
  const auto number = static_cast<std::uint32_t>(value >> 32U);
  State& state = *the_state.load();
  const std::uint32_t slot = value & 0xffffffffU;
  const arch::SystemCall call = state.calls[slot];
  if (std::atomic_ref(state.closed).load() == number)  // else it is too late
    arch::mark_and_sleep(&state.stopped[slot], number, &state.closed, number);
  if (!arch::is_interrupted(call, context) || has_other_signal(context)) return;
  if (const auto rest = rest_of(call)) arch::call_again(*rest, context);
}

// `error` is the errno of the signal that it did not get, or 0.
std::string why_not_stopped(pid_t thread, int error) {
  const std::string name = "thread " + std::to_string(thread);
  if (error == EAGAIN)
    return "no signal can be queued for " + name + "; raise the limit RLIMIT_SIGPENDING";
  if (error != 0)
    return name + " gets no signal: " + std::strerror(error) + "; a sandbox may refuse it";
  return name +
         " did not stop in time; it may be stopped (SIGSTOP), wait in the kernel, or block signal "
         "33; end it, or raise .stop_timeout";
}

void sleep_a_moment() {
  const timespec pause = {0, 50'000};
  syscall(SYS_nanosleep, &pause, nullptr);
}

}  // namespace

Expected<ThreadStopper> ThreadStopper::create(std::chrono::milliseconds timeout) {
  if (the_state.load() == nullptr) {
    void* memory =
        mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return system_error("settle: mmap", errno);
    the_state = static_cast<State*>(memory);
  }
  FileDescriptor tasks(open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!tasks) return system_error("settle: /proc/self/task", errno);

  constexpr unsigned long kHasRestorer = 0x04000000;
  const KernelAction ours = {on_signal, SA_SIGINFO | SA_RESTART | SA_ONSTACK | kHasRestorer,
                             arch::cowshed_return_from_signal, ~std::uint64_t{0}};
  KernelAction before{};
  if (set_action(nullptr, &before) == 0 && before.handler != on_signal) glibc_action = before;
  if (set_action(&ours, nullptr) != 0) return system_error("settle: rt_sigaction", errno);
  return ThreadStopper(std::move(tasks), timeout);
}

// Signals the threads that are not known yet.
ThreadStopper::Unstopped ThreadStopper::signal_new_threads() noexcept {
  State& s = *the_state.load();
  const std::size_t known_before = known_;
  Unstopped unstopped;
  syscall(SYS_lseek, tasks_.get(), 0, SEEK_SET);
  for (;;) {
    const long got = syscall(SYS_getdents64, tasks_.get(), s.entries.data(), s.entries.size());
    if (got <= 0) break;
    for (long at = 0; at < got;) {
      const auto* entry = reinterpret_cast<const dirent64*>(s.entries.data() + at);
      at += entry->d_reclen;
      pid_t thread = 0;
      std::from_chars(entry->d_name, entry->d_name + std::strlen(entry->d_name), thread);
      if (thread == 0 || thread == gettid() || known_ == kMostThreads) continue;
      std::size_t slot = 0;
      while (slot < known_before && s.threads[slot] != thread) ++slot;
      if (slot < known_before) continue;
      s.calls[known_] = call_of(tasks_.get(), entry->d_name).value_or(arch::SystemCall{});
      siginfo_t info{};
      info.si_code = SI_QUEUE;
      info.si_pid = getpid();
      info.si_value.sival_ptr = reinterpret_cast<void*>(std::uintptr_t{s.closed} << 32U | known_);
      if (syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, kSignal, &info) == 0)
        s.threads[known_++] = thread;
      else if (errno != ESRCH) unstopped = {thread, errno};
    }
  }
  return unstopped;
}

// Returns whether it has ended, or sleeps in the handler.
bool ThreadStopper::wait_for(std::size_t slot, Clock::time_point deadline) const noexcept {
  const pid_t thread = the_state.load()->threads[slot];
  for (unsigned i = 0; !sleeps(slot); ++i) {
    constexpr unsigned kSpins = 100;
    if (syscall(SYS_tgkill, getpid(), thread, 0) != 0 && errno == ESRCH) return true;
    if (i < kSpins) {
      syscall(SYS_sched_yield);
      continue;
    }
    if (Clock::now() > deadline) return false;
    sleep_a_moment();
  }
  return true;
}

bool ThreadStopper::sleeps(std::size_t slot) const noexcept {
  State& s = *the_state.load();
  return std::atomic_ref(s.stopped[slot]).load() == s.closed;
}

Expected<void> ThreadStopper::stop() {
  State& s = *the_state.load();
  const auto deadline = Clock::now() + timeout_;
  known_ = 0;
  std::atomic_ref(s.closed).store(++s.last_number);
  for (;;) {
    Unstopped unstopped = signal_new_threads();
    std::size_t accounted = 1;  // this thread
    for (std::size_t slot = 0; slot < known_ && unstopped.thread == 0; ++slot)
      if (!wait_for(slot, deadline)) unstopped = {s.threads[slot], 0};
      else if (sleeps(slot)) ++accounted;
    // Threads may have started others, and a listing may miss a thread while others end.
    const std::size_t counted = count();
    if (unstopped.thread == 0 && accounted == counted) return {};
    if (Clock::now() > deadline) {
      resume();
      return make_error(
          ErrorCode::threads_running,
          "settle: " + (unstopped.thread != 0
                            ? why_not_stopped(unstopped.thread, unstopped.error)
                            : std::to_string(accounted) + " of " + std::to_string(counted) +
                                  " threads are known to be stopped; end some, or "
                                  "raise .stop_timeout"));
    }
    sleep_a_moment();
  }
}

std::size_t ThreadStopper::count() const noexcept {
  struct stat status{};
  constexpr std::size_t kDots = 2;  // "." and "..", which a folder's links count
  return fstat(tasks_.get(), &status) == 0 && status.st_nlink > kDots ? status.st_nlink - kDots : 0;
}

void ThreadStopper::resume() noexcept {
  State& s = *the_state.load();
  std::atomic_ref(s.closed).store(0);
  syscall(SYS_futex, &s.closed, FUTEX_WAKE_PRIVATE, 0x7fffffff, nullptr, nullptr, 0);
}

}  // namespace cowshed::settling
