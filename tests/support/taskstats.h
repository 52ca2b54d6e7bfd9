#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <sys/types.h>

// The kernel's own count of copies (wp_page_copy in mm/memory.c), kept per task where
// kernel.task_delayacct is on.  Not in it: copies of private file pages that were not read before.
namespace cowshed::test {

// Of a whole process up to now, its ended threads included; nothing where this kernel cannot say.
std::optional<std::uint64_t> wpcopy_count(pid_t tgid);

// By how much taskstats may be short of what happened: it counts a copy only if it took some time
// (delayacct_end() in kernel/delayacct.c), by local_clock(), which stands still while a tick is
// late (kernel/sched/clock.c: it never runs further ahead than one).  This is for a machine whose
// ticks come in time, on which it misses 4 of 100,000; on a busy one it has missed one in six, and
// a test that fails by that is to be run again, alone.  Never does it count more.
inline std::int64_t most_unseen(std::uint64_t counted) {
  return 8 + static_cast<std::int64_t>(counted / 1000);
}

// What the kernel says of each task when it ends: of the machine's, from the construction on.  The
// last that it counts lies before the task lets go of its memory (do_exit() in kernel/exit.c), in
// which it may still copy the two pages that clear_child_tid and the robust futexes are in.
class ExitAccounts {
 public:
  // Throws std::runtime_error where the kernel does not let us listen.
  ExitAccounts();
  ~ExitAccounts();
  ExitAccounts(const ExitAccounts&) = delete;
  ExitAccounts& operator=(const ExitAccounts&) = delete;

  // The copies of each process that has ended, all its threads together, by its PID.  Throws
  // std::runtime_error where the kernel had to drop some.
  const std::map<pid_t, std::uint64_t>& wpcopy_counts();

 private:
  void add(const char* message, std::size_t size);

  int fd_ = -1;
  std::map<pid_t, std::uint64_t> counts_;
};

}  // namespace cowshed::test
