#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <linux/futex.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/share/settle/other_threads.h>

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
  std::array<char, 32768> entries;
};

std::atomic<State*> the_state;
KernelAction glibc_action;

void on_signal(int signal, siginfo_t* info, void* context) {
  if (info->si_code != SI_QUEUE) {  // not ours
    if ((glibc_action.flags & SA_SIGINFO) != 0 && glibc_action.handler != nullptr)
      glibc_action.handler(signal, info, context);
    return;
  }
  const auto value = reinterpret_cast<std::uintptr_t>(info->si_value.sival_ptr);
  const auto number = static_cast<std::uint32_t>(value >> 32U);
  State& state = *the_state.load();
  if (std::atomic_ref(state.closed).load() != number) return;  // too late
  arch::mark_and_sleep(&state.stopped[value & 0xffffffffU], number, &state.closed, number);
}

bool has_ended(pid_t thread) {
  if (syscall(SYS_tgkill, getpid(), thread, 0) != 0) return true;
  // A main thread that has called pthread_exit() stays as a zombie.
  std::array<char, 64> path = {"/proc/self/task/"};
  char* end = std::to_chars(path.data() + std::strlen(path.data()), path.end(), thread).ptr;
  std::ranges::copy(std::string_view("/stat"), end);  // zeros follow
  const long file = syscall(SYS_openat, AT_FDCWD, path.data(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return true;
  std::array<char, 256> text = {};
  syscall(SYS_read, file, text.data(), text.size() - 1);
  syscall(SYS_close, file);
  const char* name_end = std::strrchr(text.data(), ')');
  return name_end != nullptr &&
         (std::strncmp(name_end, ") Z", 3) == 0 || std::strncmp(name_end, ") X", 3) == 0);
}

}  // namespace

std::string other_threads() {
  // A thread that was joined is there for a moment.
  constexpr int kTries = 50;
  std::string names;
  for (int i = 0; i < kTries; ++i) {
    names.clear();
    std::error_code ignored;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
      const std::string number = task.path().filename().string();
      if (number == std::to_string(gettid())) continue;
      std::string name;
      std::getline(std::ifstream(task.path() / "comm"), name);
      names.append(names.empty() ? "" : ", ").append(name).append(" (").append(number).append(")");
      if (names.size() > 200) return names + ", ...";
    }
    if (names.empty()) break;
    usleep(200);
  }
  return names;
}

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

// Returns whether there were any.
bool ThreadStopper::signal_new_threads() noexcept {
  State& s = *the_state.load();
  const std::size_t known_before = known_;
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
      slot = known_++;
      s.threads[slot] = thread;
      siginfo_t info{};
      info.si_code = SI_QUEUE;
      info.si_pid = getpid();
      info.si_value.sival_ptr = reinterpret_cast<void*>(std::uintptr_t{s.closed} << 32U | slot);
      if (syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, kSignal, &info) != 0) --known_;
    }
  }
  return known_ > known_before;
}

int ThreadStopper::wait_for(std::size_t slot, Clock::time_point deadline) noexcept {
  State& s = *the_state.load();
  const std::atomic_ref stopped(s.stopped[slot]);
  for (unsigned i = 0; stopped.load() != s.closed; ++i) {
    constexpr unsigned kSpins = 100;
    if (i < kSpins) {
      syscall(SYS_sched_yield);
      continue;
    }
    if (has_ended(s.threads[slot])) return 0;
    if (Clock::now() > deadline) return s.threads[slot];
    const timespec pause = {0, 50'000};
    syscall(SYS_nanosleep, &pause, nullptr);
  }
  return 0;
}

int ThreadStopper::stop() noexcept {
  State& s = *the_state.load();
  const auto deadline = Clock::now() + timeout_;
  known_ = 0;
  std::atomic_ref(s.closed).store(++s.last_number);
  std::size_t waited = 0;
  while (signal_new_threads()) {  // those that run may start others
    for (; waited < known_; ++waited) {
      if (const int late = wait_for(waited, deadline)) {
        resume();
        return late;
      }
    }
  }
  if (known_ < kMostThreads) return 0;
  resume();
  return s.threads[0];
}

void ThreadStopper::resume() noexcept {
  State& s = *the_state.load();
  std::atomic_ref(s.closed).store(0);
  syscall(SYS_futex, &s.closed, FUTEX_WAKE_PRIVATE, 0x7fffffff, nullptr, nullptr, 0);
}

}  // namespace cowshed::settling
