#pragma once

#include <cstddef>
#include <functional>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/tests/support/child.h>

#include "attacks.h"

namespace cowshed::test {

enum class State { strict, lenient, unfrozen };

// An arena for one attack, and what was in it before.
class AttackedArena {
 public:
  explicit AttackedArena(State state);

  Expected<void> freeze(State state);
  void aim_at(pid_t victim) { target_.victim = victim; }

  // To be called first in each process that is to work with the arena; throws when it cannot.
  Target gain_access() const;
  // Unmaps it, which leaves what the kernel holds.
  void drop_access() const;

  // The calling process's view.
  bool unchanged() const;
  // The same where a load may end the process: by /proc.
  bool unchanged_by_proc() const;
  // Size, seals and contents of the file, by a descriptor and a mapping of their own.
  bool file_unchanged() const;

 private:
  int open_file(int how) const;

  State state_;
  Arena arena_;
  Target target_;
  std::vector<std::byte> before_;
  std::pair<off_t, int> file_before_;
};

// A process that has the arena and answers a question: whether its bytes are the same, unless told
// otherwise.
class Sibling {
 public:
  // Runs in the process, which has gained access, and returns what answers.
  using Prepare = std::function<std::function<bool()>(const Target&)>;

  explicit Sibling(const AttackedArena& arena);
  Sibling(const AttackedArena& arena, const Prepare& prepare);

  pid_t pid() const { return child_.pid(); }
  bool says_yes() const;

 private:
  Child child_;
};

}  // namespace cowshed::test
