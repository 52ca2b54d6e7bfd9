#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <thread>
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

// A sandbox may end a thread that is made to call what this thread calls.
std::array<std::size_t, 2> sandboxes() {
  return {settling::status_bytes("Seccomp"), settling::status_bytes("Seccomp_filters")};
}

// Whether the program's first thread has ended and it has no other: the C library ends the process
// once this thread ends, too.
bool has_outlived_the_program() {
  return settling::status_bytes("VmSize") == 0 && settling::status_bytes("Threads") == 2_KiB;
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

struct Undoer {
  double cpu_share;
  void (*log)(std::string_view reason);

  void run() const {
    const auto sandboxes_at_start = sandboxes();
    Rounds rounds;
    nanoseconds undone{};  // the program's CPU time at the last round
    nanoseconds before{};
    for (nanoseconds tick = kTick; !has_outlived_the_program();) {
      std::this_thread::sleep_for(tick);
      const nanoseconds now = program_cpu();
      const bool is_idle = now - std::exchange(before, now) < tick / kIdlePart;
      const bool is_worth_it = now - undone >= kLittle;
      tick = is_worth_it ? kTick : std::min(2 * tick, kLongestTick);
      if (!is_worth_it || !rounds.may_begin(is_idle)) continue;
      if (sandboxes() != sandboxes_at_start) return log("the process has entered a sandbox");
      undone = now;
      const auto reshared =
          reshare({.cpu_share = cpu_share, .threads = OtherThreads::stop, .stop_timeout = 250ms});
      if (reshared) {
        rounds.note(*reshared);
      } else {
        const ErrorCode code = reshared.error().code;
        if (code != ErrorCode::threads_running && code != ErrorCode::in_use)
          return log(reshared.error().message);
        rounds.note_end(true);
      }
      before = program_cpu();
    }
  }
};

Undoer the_undoer;
std::atomic<bool> keeps_pages;

void* run(void*) {
  if (geteuid() == 0) settling::OwnPages::keep_for_this_thread();
  keeps_pages = true;
  keeps_pages.notify_one();
  the_undoer.run();
  return nullptr;
}

}  // namespace

bool start_thread(double most_cpu, void (*log)(std::string_view reason)) {
  // reshare() leaves memory up to 1 MiB below this thread's stack, and a page behind its variables.
  // A child begins its thread on the same memory.
  constexpr std::size_t kStack = 2_MiB;
  constexpr std::size_t kGuard = 16_KiB;
  static std::byte* stack = nullptr;
  if (stack == nullptr) {
    void* memory = mmap(nullptr, kStack + 2 * kGuard, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    stack = static_cast<std::byte*>(memory) + kGuard;
    if (mprotect(stack, kStack, PROT_READ | PROT_WRITE) != 0) return false;
  }
  the_undoer = {most_cpu, log};
  keeps_pages = false;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);  // but for those of glibc, which setuid() waits for
  pthread_attr_t attributes;
  pthread_t thread{};
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, kStack);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  const bool has_started = pthread_create(&thread, &attributes, run, nullptr) == 0;
  if (has_started) pthread_setname_np(thread, "cowshed-undo");  // before others look
  pthread_attr_destroy(&attributes);
  // A server may become another user.
  if (has_started && geteuid() == 0) keeps_pages.wait(false);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return has_started;
}

}  // namespace cowshed::undo
