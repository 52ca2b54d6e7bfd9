#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <linux/futex.h>
#include <new>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/settle.h>
#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/pages.h>
#include <cowshed/share/undo/undoer.h>

namespace cowshed::undo {
namespace {

using namespace size_literals;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

constexpr nanoseconds kTick = 250ms;
constexpr nanoseconds kLongestTick = 4s;
constexpr nanoseconds kLittle = 5ms;  // of CPU: it takes as much to look
constexpr int kIdlePart = 20;         // of a tick that an idle process may use
constexpr nanoseconds kShortestWait = 1s;
constexpr nanoseconds kLongestWait = 64s;
constexpr nanoseconds kBusyWait = 10s;  // at least, where the process does not pause

nanoseconds cpu_of(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return std::chrono::seconds(time.tv_sec) + nanoseconds(time.tv_nsec);
}

// Of the program's threads.
nanoseconds program_cpu() {
  return cpu_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_of(CLOCK_THREAD_CPUTIME_ID);
}

using Sandbox = std::array<std::size_t, 2>;  // the mode, and the number of filters

Sandbox sandbox_of(const std::filesystem::path& thread) {
  Sandbox sandbox{};
  std::ifstream status(thread / "status");
  for (std::string key; status >> key;) {
    if (key == "Seccomp:") status >> sandbox[0];
    if (key == "Seccomp_filters:") status >> sandbox[1];
  }
  return sandbox;
}

Sandbox first_sandbox;

std::size_t own_threads;

// Whether the program's first thread has ended and it has no other: the C library ends the process
// once ours end, too.
bool has_outlived_the_program() {
  return settling::status_bytes("VmSize") == 0 &&
         settling::status_bytes("Threads") == (1 + own_threads) * 1_KiB;
}

// How long a round must be after the last one.  Copies that come back at once were undone in vain.
class Rounds {
 public:
  bool may_begin(bool is_idle) const {
    return Clock::now() - last_ >= (is_idle ? wait_ : std::max(wait_, kBusyWait));
  }
  void note(const Reshared& reshared) {
    const std::size_t anew = reshared.compared_bytes - std::min(reshared.compared_bytes, left_);
    const bool is_soon = Clock::now() - last_ < 2 * std::max(wait_, kBusyWait);
    const bool is_in_vain = reshared.given_back_bytes < 256_KiB ||
                            (is_soon && given_back_ > 0 && anew > given_back_ / 4 * 3);
    left_ = reshared.compared_bytes - reshared.given_back_bytes;
    given_back_ = reshared.given_back_bytes;
    note_end(is_in_vain);
  }
  void note_end(bool is_in_vain) {
    wait_ = is_in_vain ? std::min(2 * wait_, kLongestWait) : std::max(wait_ / 2, kShortestWait);
    last_ = Clock::now();
  }

 private:
  Clock::time_point last_ = Clock::now();
  nanoseconds wait_ = kShortestWait;
  std::size_t left_ = 0;  // bytes of copies that the last round left
  std::size_t given_back_ = 0;
};

std::atomic<std::uint32_t> is_to_end;  // a futex

// Returns whether to go on.
bool sleep(nanoseconds time) {
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(time);
  const timespec limit = {whole.count(), (time - whole).count()};
  if (time > 0ns) syscall(SYS_futex, &is_to_end, FUTEX_WAIT_PRIVATE, 0, &limit, nullptr, 0);
  return is_to_end == 0;
}

constexpr const char* kSandbox = "a thread has entered a sandbox";

struct Undoer {
  double cpu_share;
  void (*log)(std::string_view reason);

  // Returns why it ends, or "".
  std::string run() const {
    Rounds rounds;
    nanoseconds undone{};  // the program's CPU time at the last round
    nanoseconds before{};
    for (nanoseconds tick = kTick; !has_outlived_the_program();) {
      if (!sleep(tick)) return kSandbox;
      const nanoseconds now = program_cpu();
      const bool is_idle = now - std::exchange(before, now) < tick / kIdlePart;
      const bool is_worth_it = now - undone >= kLittle;
      tick = is_worth_it ? kTick : std::min(2 * tick, kLongestTick);
      if (!is_worth_it || !rounds.may_begin(is_idle)) continue;
      if (is_any_thread_in_sandbox()) return kSandbox;
      undone = now;
      const auto reshared = reshare(
          {.cpu_share = cpu_share,
           .pause = [](nanoseconds time) { return sleep(time) && !is_any_thread_in_sandbox(); },
           .threads = OtherThreads::stop,
           .stop_timeout = 250ms});
      if (reshared) {
        rounds.note(*reshared);
      } else {
        const ErrorCode code = reshared.error().code;
        if (code == ErrorCode::interrupted) return kSandbox;
        if (code != ErrorCode::threads_running && code != ErrorCode::in_use)
          return reshared.error().message;
        rounds.note_end(true);
      }
      before = program_cpu();
    }
    return "";
  }
};

Undoer the_undoer;
pthread_t undoer_thread;
pthread_t last_thread;  // of ours, to end
std::array<char, 512> reason_to_end;
sigset_t programs_signals;

// The undoer has a table of descriptors of its own: the program may close any number at any time.
enum class State : int { starts, runs, ended };
std::atomic<State> state;

void set(State to) {
  state = to;
  state.notify_all();
}

void* undo(void*) {
  settling::OwnPages::keep_for_this_thread();
  set(State::runs);
  std::string reason;
  try {
    reason = the_undoer.run();
  } catch (const std::bad_alloc&) {
    reason = "no memory is left";
  }
  reason.copy(reason_to_end.data(), reason_to_end.size() - 1);
  set(State::ended);
  return nullptr;
}

// Has the program's descriptors: if the program's last thread has ended, so that the C library ends
// the process with this one, its handlers find their files.
void* keep_files(void*) {
  for (State now = state; now != State::ended; now = state) state.wait(now);
  pthread_join(undoer_thread, nullptr);
  if (reason_to_end[0] != '\0') the_undoer.log(reason_to_end.data());
  pthread_sigmask(SIG_SETMASK, &programs_signals, nullptr);
  return nullptr;
}

// reshare() leaves memory up to 1 MiB below the undoer's stack, and a page behind its variables.
constexpr std::size_t kStack = 2_MiB;
constexpr std::size_t kGuard = 16_KiB;

// A child begins its threads on the same memory.
std::byte* stack_of(std::size_t thread) {
  constexpr std::size_t kThreads = 2;
  static std::byte* stacks = nullptr;
  if (stacks == nullptr) {
    void* memory = mmap(nullptr, kThreads * (kStack + kGuard) + kGuard, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    stacks = static_cast<std::byte*>(memory) + kGuard;
  }
  std::byte* const stack = stacks + thread * (kStack + kGuard);
  return mprotect(stack, kStack, PROT_READ | PROT_WRITE) == 0 ? stack : nullptr;
}

bool create(pthread_t& thread, std::size_t number, void* (*run)(void*)) {
  std::byte* const stack = stack_of(number);
  if (stack == nullptr) return false;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, kStack);
  const bool has_started = pthread_create(&thread, &attributes, run, nullptr) == 0;
  if (has_started) pthread_setname_np(thread, "cowshed-undo");  // before others look
  pthread_attr_destroy(&attributes);
  return has_started;
}

}  // namespace

void note_sandbox() { first_sandbox = sandbox_of("/proc/self"); }

bool is_any_thread_in_sandbox() {
  std::error_code error;
  const std::filesystem::directory_iterator threads("/proc/self/task", error);
  return std::any_of(begin(threads), end(threads),
                     [](const auto& thread) { return sandbox_of(thread.path()) != first_sandbox; });
}

bool start_thread(double most_cpu, void (*log)(std::string_view reason)) {
  the_undoer = {most_cpu, log};
  reason_to_end = {};
  is_to_end = 0;
  state = State::starts;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &programs_signals);  // but for glibc's, as setuid() waits
  const bool has_started = create(undoer_thread, 0, undo);
  if (has_started) {
    state.wait(State::starts);  // for its own table, and since a server may become another user
    own_threads = 1;
    last_thread = undoer_thread;
    if (create(last_thread, 1, keep_files)) own_threads = 2;
  }
  pthread_sigmask(SIG_SETMASK, &programs_signals, nullptr);
  return has_started;
}

void end_thread() {
  is_to_end = 1;
  syscall(SYS_futex, &is_to_end, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  pthread_join(last_thread, nullptr);
}

}  // namespace cowshed::undo
