#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::settling {

// Returns the names and numbers of other threads, or "" if there are none.
std::string other_threads();

// Stops all other threads of this process, so that none of them writes to memory.  They sleep in
// the handler of a signal.  glibc keeps this signal for itself, so programs do not block it.
//
// For one object at a time.  Between stop() and resume() the caller must not take locks, such as
// malloc's: a stopped thread may hold them.
class ThreadStopper {
 public:
  static Expected<ThreadStopper> create(std::chrono::milliseconds timeout);

  // Returns 0, or the number of a thread that did not stop in time; all run again then.
  int stop() noexcept;
  void resume() noexcept;

 private:
  using Clock = std::chrono::steady_clock;

  ThreadStopper(FileDescriptor tasks, std::chrono::milliseconds timeout)
      : tasks_(std::move(tasks)), timeout_(timeout) {}
  bool signal_new_threads() noexcept;
  int wait_for(std::size_t slot, Clock::time_point deadline) noexcept;

  FileDescriptor tasks_;  // /proc/self/task
  std::chrono::milliseconds timeout_;
  std::size_t known_ = 0;
};

}  // namespace cowshed::settling
