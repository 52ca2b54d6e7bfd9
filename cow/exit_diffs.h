#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <sys/types.h>
#include <thread>

#include <cowshed/base/error.h>
#include <cowshed/cow/copy_diffs.h>
#include <cowshed/cow/exit_stops.h>
#include <cowshed/cow/process_copies.h>

namespace cowshed::cow {

// Compares what each process of a tree has copied (copy_diffs.h) at its exit, held there for as
// long as that takes (exit_stops.h says what else the process can notice): also of a child that
// lives too short to be looked at.  Costs, for each GiB that a process has resident: some 7 ms at
// its start and 20 ms at its exit, and some us for each page that it copied.  A process that cannot
// be traced is compared at intervals instead, where its memory may be read.
//
// A thread of its own is the tracer.  It needs SIGCHLD to be blocked in every thread of this
// process: start() blocks it in the caller's for good.  Not thread-safe.
class ExitDiffs {
 public:
  enum class Root : std::uint8_t {
    own_child,  // that the caller will wait for; it has not executed its program yet
    running,    // and all its descendants
  };
  // Errors: system_call.
  static Expected<std::unique_ptr<ExitDiffs>> start(pid_t root, Root kind);

  ExitDiffs(const ExitDiffs&) = delete;
  ExitDiffs& operator=(const ExitDiffs&) = delete;
  ~ExitDiffs();

  // Of the processes that could not be traced: one line, or empty.
  const std::string& refusal() const { return refusal_; }

  // Compares all that are alive, lets them go, and sets what is known of the processes of
  // `measurement`.
  void end(Measurement& measurement);

 private:
  ExitDiffs(pid_t root, int child_fd, int end_fd);
  void run(pid_t root, Root kind, std::promise<void> is_attached);
  void attach(ExitStops& stops, pid_t root, Root kind);

  CopyDiffs diffs_;
  ExitDiffSummary summary_;
  std::string refusal_;
  int child_fd_;  // SIGCHLD
  int end_fd_;
  std::thread tracer_;
};

}  // namespace cowshed::cow
