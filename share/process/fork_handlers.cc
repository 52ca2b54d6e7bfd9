#include <array>
#include <atomic>
#include <bit>
#include <mutex>
#include <pthread.h>
#include <sys/single_threaded.h>

#include <cowshed/share/jemalloc/jemalloc.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/process/fork_handlers.h>

namespace cowshed::fork_handlers {
namespace {

constinit std::array<std::atomic<const Handlers*>, kRanks> handlers_of = {};
constinit std::atomic<unsigned> entered = 0;  // ranks, a bit each

// Locked after all ranks' locks, and held during a fork.
COWSHED_FORK_STATE std::mutex gate;
COWSHED_FORK_STATE std::atomic<pthread_t> gate_holder = 0;  // the thread that forks
COWSHED_FORK_STATE unsigned held = 0;  // the ranks that it has locked, a bit each

const Handlers& entered_at(unsigned rank) {
  return *handlers_of[rank].load(std::memory_order_relaxed);
}

void take(unsigned ranks) {
  for (; ranks != 0; ranks &= ranks - 1)
    entered_at(static_cast<unsigned>(std::countr_zero(ranks))).before();
}

void give_back(unsigned ranks, void (*Handlers::*how)()) {
  while (ranks != 0) {
    const auto last = static_cast<unsigned>(std::bit_width(ranks)) - 1;
    (entered_at(last).*how)();
    ranks ^= 1U << last;
  }
}

void before_fork() {
  unsigned ranks = entered.load();
  if (ranks == 0 && __libc_single_threaded != 0)
    return;  // no thread can enter a rank, and the child needs no copy of the gate's page
  for (;;) {
    take(ranks);
    gate.lock();
    const unsigned now = entered.load();
    if (now == ranks) break;
    gate.unlock();  // the new rank may come before one that is locked
    give_back(ranks, &Handlers::in_parent);
    ranks = now;
  }
  held = ranks;
  gate_holder = pthread_self();
}

void after_fork(void (*Handlers::*how)()) {
  if (gate_holder.load(std::memory_order_relaxed) != pthread_self()) return;
  const unsigned ranks = held;
  gate_holder = 0;
  gate.unlock();
  give_back(ranks, how);
}

// Runs before other constructors, when there is no other thread that could fork.  The C library
// calls the newest "before" handler first.  jemalloc's are registered before ours, so its locks
// come after ours.  The program's are registered later, so they can still use the library.
[[gnu::constructor(101)]] void register_handlers() {
  jemalloc::initialise();
  // If this fails (ENOMEM), a child of a process with threads may find a lock taken for ever.
  (void)pthread_atfork(
      &before_fork, [] { after_fork(&Handlers::in_parent); },
      [] { after_fork(&Handlers::in_child); });
}

}  // namespace

void enter(Rank rank, const Handlers& handlers) noexcept {
  const unsigned bit = 1U << static_cast<unsigned>(rank);
  if ((entered.load(std::memory_order_acquire) & bit) == 0) {
    const std::lock_guard after_the_fork(gate);  // for all threads that find no bit
    handlers_of[static_cast<unsigned>(rank)].store(&handlers, std::memory_order_relaxed);
    entered.fetch_or(bit);
  }
}

}  // namespace cowshed::fork_handlers
