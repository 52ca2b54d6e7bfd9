#pragma once

#include <cstdint>
#include <mutex>

// All of this library's fork handlers.  Nothing else calls pthread_atfork(3).
//
// The lock order is the order of the ranks.  A thread that holds a lock of one rank may take locks
// of later ranks only; malloc's and the private jemalloc's come after all ranks.  fork() takes the
// locks in that order and holds them, so that no child inherits a lock that a thread of the parent
// had taken.
namespace cowshed::fork_handlers {

enum class Rank : std::uint8_t {
  forkserver,  // the process's own forkserver; held while it starts, which packs arenas
  channels,    // attaching to a channel
  transfers,   // the rows of what was sent
  registry,    // has no lock; in a child it forgets objects in arenas that the child does not have
  arenas,      // the table of arenas, and each arena
  addresses,   // addresses of arenas
  process,     // the tree, the published layout and the registry
};
constexpr unsigned kRanks = 7;

struct Handlers {
  void (*before)();     // locks; called by ascending rank
  void (*in_parent)();  // unlocks; called by descending rank, also if fork() failed
  void (*in_child)();   // unlocks in the child; called by descending rank
};

// Makes fork() run these handlers, which are static.  Call it before each use of the rank's locks,
// with or without locks of other ranks held.  Waits until a fork in another thread has ended. Later
// calls for the same rank do nothing.  Thread-safe.
void enter(Rank rank, const Handlers& handlers) noexcept;

// Returns the mutex, which every later fork() holds.  For a rank with no other lock.
template <Rank rank, std::mutex& mutex>
std::mutex& held_over_forks() noexcept {
  static constexpr Handlers kHandlers = {[] { mutex.lock(); }, [] { mutex.unlock(); },
                                         [] { mutex.unlock(); }};
  enter(rank, kHandlers);
  return mutex;
}

}  // namespace cowshed::fork_handlers
