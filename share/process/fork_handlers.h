#pragma once

#include <cstdint>

// This library's handlers for fork(), all of them: the only caller of pthread_atfork(3).
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
  registry,    // no lock of its own; in a child, what arenas do not have there is gone
  arenas,      // the arenas' table, and each arena
  addresses,   // those that arenas get
  process,     // the tree, the published layout and the registry
};
constexpr unsigned kRanks = 7;

struct Handlers {
  void (*before)();     // takes the locks; by ascending rank
  void (*in_parent)();  // gives them back; by descending rank.  Also where no fork followed
  void (*in_child)();   // gives them back in the child; by descending rank
};

// From here on fork() runs these.  To be called before each use of the rank's locks, with or
// without locks of other ranks held.  Waits for a fork that is under way, so that this fork and the
// caller's next step do not overlap.  Thread-safe; later calls for the same rank do nothing.
void enter(Rank rank, const Handlers& handlers) noexcept;  // static memory

}  // namespace cowshed::fork_handlers
