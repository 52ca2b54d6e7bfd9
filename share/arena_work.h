#pragma once

#include <mutex>

#include <cowshed/share/arena_core.h>

namespace cowshed {

// Holds an arena's mutex through what may call the user's Progress, in which fork() is allowed: the
// fork handlers leave out what the forking thread holds by this.
class ArenaWork {
 public:
  // Thrown in a child that returned from such a call, and has not what it was about.
  struct Disowned {};

  explicit ArenaWork(ArenaCore& core);
  ~ArenaWork();
  ArenaWork(const ArenaWork&) = delete;
  ArenaWork& operator=(const ArenaWork&) = delete;

  static bool is_by_this_thread(const ArenaCore& core);

 private:
  ArenaCore& core_;
  ArenaWork* outer_;
};

// Calls `progress` for work on the core; throws Disowned.
Progress watched(const Progress& progress, const ArenaCore& core);

tl::unexpected<Error> moved_from_error();

}  // namespace cowshed
