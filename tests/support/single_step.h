#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <sys/types.h>
#include <vector>

namespace cowshed::test {

// A forked child that runs a function of ours one instruction at a time, so that a test can end or
// stop it at any point of it.  A `rep` string instruction counts once for each of its turns, a
// system call once.  The parent may use one at a time, from one thread.
class SteppedChild {
 public:
  // Each runs in the child, `action` under PTRACE_SINGLESTEP; `after` ends with _exit(2).
  struct Body {
    std::function<void()> before;
    std::function<void()> action;
    std::function<void()> after;
  };

  // Returns when `before` has; throws std::runtime_error where ptrace(2) is refused or the child
  // ends in `before`.
  explicit SteppedChild(const Body& body);
  SteppedChild(const SteppedChild&) = delete;
  SteppedChild& operator=(const SteppedChild&) = delete;
  ~SteppedChild();  // kills what is left

  pid_t pid() const { return pid_; }

  // Runs `count` instructions of the action; how many there were before it returned.  A child that
  // blocks in the kernel blocks this call.
  std::size_t step(std::size_t count);

  struct Path {
    // The program counter before each instruction of the action, and after the last.
    std::vector<std::uintptr_t> counters;
    // Of each, the latest that is not after it where the path had not been before.
    std::vector<std::size_t> newest;
    // Whether the instruction before it was a system call or changed what others see.
    std::vector<bool> changed;

    std::size_t size() const { return counters.size(); }
    bool is_new(std::size_t at) const { return newest[at] == at; }
  };
  // Runs the whole of the action.  `seen`: a figure of what others see of it, as a hash of the
  // memory that is shared with them.
  Path run_stepped(const std::function<std::uint64_t()>& seen = [] { return 0; });

  // The same as step(count) in a child that takes the path that another took before it, sooner: as
  // far as the path comes to where it has not been, it runs to a breakpoint.  False when it did not
  // come there; then it has returned.
  bool step_along(const Path& path, std::size_t count);
  bool has_returned() const { return returned_; }

  void kill();  // SIGKILL; gone, with nothing left to wait for, on return
  void stop();  // SIGSTOP, and no longer traced; it has stopped on return
  int go_on();  // SIGCONT after stop(), or lets it run to its end; its status, as of waitpid(2)

 private:
  void wait_for_stop();
  bool run_to(std::uintptr_t pc);

  pid_t pid_ = -1;
  bool traced_ = false;
  bool returned_ = false;
};

}  // namespace cowshed::test
