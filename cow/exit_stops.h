#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <sys/types.h>

#include <cowshed/base/error.h>
#include <cowshed/cow/proc_files.h>

namespace cowshed::cow {

// Stops processes at their exits, while their memory is still there, by ptrace(2): PTRACE_SEIZE
// with PTRACE_O_TRACEEXIT.  Each descendant is attached by the kernel before its first instruction.
// Everything else passes through: signals, group-stops (PTRACE_LISTEN), exec.  A process is let go
// (PTRACE_DETACH) at its exit, so that its end is its parent's to wait for, as ever.
//
// Of a process's threads, the last to come to its exit is the one that counts: only then nobody
// writes to its memory any more.  exit_group(2), a signal and exec all make the others exit first
// or at the same time; the first thread may have ended long before.
//
// Where a process is killed (SIGKILL) it stops at its exit, too.  Only one that is killed again in
// that moment may go without a stop: that counts as missed.
//
// What a traced process can notice (ptrace(2)): it cannot be traced by anybody else, nor call
// PTRACE_TRACEME (EPERM); a signal that it ignores ends those of its system calls that are never
// restarted (epoll_wait and others of signal(7)) with EINTR, as a stop signal does without a
// tracer; a set-user-ID program that it executes runs without its owner's privileges where we lack
// CAP_SYS_PTRACE; TracerPid in /proc.
//
// A tracer is a thread: all is to be called from one.  When it ends, in whatever way, the kernel
// lets all go, also those that are stopped.
class ExitStops {
 public:
  // Called while the process is stopped.  `task` is the thread through whose files in /proc its
  // memory can be read.
  struct Events {
    std::function<void(pid_t child, pid_t parent)> started;  // also for vfork
    std::function<void(pid_t pid)> executed;
    std::function<void(pid_t pid, pid_t task)> exiting;
    std::function<void(pid_t pid)> missed;  // gone without exiting
  };

  // `own_child`: a child of this process that somebody else waits for; 0: none.  Should it end
  // without a stop, its status is left to them, and no more events are handled.
  ExitStops(Events events, pid_t own_child, ProcFiles proc = ProcFiles());
  ExitStops(const ExitStops&) = delete;
  ExitStops& operator=(const ExitStops&) = delete;
  ~ExitStops() = default;

  // Attaches to all threads of a running process.  Errors: permission_denied, where the process is
  // traced already, and by whom, or belongs to somebody else; no_such_process; system_call.
  Expected<void> seize(pid_t pid);

  // Handles one event.  False: there is none.
  bool handle_one();

  // How long processes were held at their starts, execs and exits.
  std::uint64_t held_ns() const { return held_ns_; }

 private:
  void arrive(pid_t task, pid_t forked_by);
  void handle_stop(pid_t task, int status);
  void exiting(pid_t task);
  void forget_ended(std::set<pid_t>& tasks) const;
  void executed(pid_t pid);
  void gone(pid_t task);
  pid_t process_of(pid_t task) const;

  Events events_;
  pid_t own_child_;
  ProcFiles proc_;
  std::map<pid_t, pid_t> processes_;          // of each thread that is traced
  std::map<pid_t, std::set<pid_t>> running_;  // each process's threads that have not come to exit
  std::set<pid_t> not_told_;  // seen by a stop of their own, not yet by the event of who made them
  std::uint64_t held_ns_ = 0;
};

}  // namespace cowshed::cow
