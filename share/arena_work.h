#pragma once

#include <mutex>

#include <cowshed/share/arena_core.h>

namespace cowshed {

// Holds an arena's mutex through what may call the user's Progress, in which fork() is allowed: the
// fork handlers leave out what the forking thread holds by this, and need not wait for what another
// thread holds while that is in a Progress, perhaps waiting to fork itself.
class ArenaWork {
 public:
  // Thrown in a child that returned from such a call, and has not what it was about.
  struct Disowned {};

  explicit ArenaWork(ArenaCore& core);
  ~ArenaWork();
  ArenaWork(const ArenaWork&) = delete;
  ArenaWork& operator=(const ArenaWork&) = delete;

  static bool is_by_this_thread(const ArenaCore& core);

  // For the fork handlers: keeps the arena as it is over the fork, and gives it back, in the child
  // also what a thread held that is not there.
  static void hold_over_fork(ArenaCore& core);
  static void give_back_in_parent(ArenaCore& core);
  static void give_back_in_child(ArenaCore& core);

 private:
  ArenaCore& core_;
  ArenaWork* outer_;
};

// Calls `progress` for work on the core, which is at rest meanwhile; throws Disowned.
Progress watched(const Progress& progress, ArenaCore& core);

tl::unexpected<Error> moved_from_error();

}  // namespace cowshed
