#pragma once

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <string>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::settling {

// All signals, and no cancellation, until this is destroyed.
class SignalsBlocked {
 public:
  SignalsBlocked() { set(~std::uint64_t{0}, &before_); }
  ~SignalsBlocked() { set(before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  static void set(std::uint64_t mask, std::uint64_t* before) {
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, before, sizeof mask);
  }

  std::uint64_t before_ = 0;
};

// Stops all other threads of this process, so that none of them writes to memory.  They sleep in
// the handler of a signal.  glibc keeps this signal for itself, so programs do not block it.
//
// For one object at a time.  Between stop() and resume() the caller must not take locks, such as
// malloc's: a stopped thread may hold them.
class ThreadStopper {
 public:
  static Expected<ThreadStopper> create(std::chrono::milliseconds timeout);

  // Errors: threads_running, with the thread and the reason; all threads run again then.
  Expected<void> stop();
  void resume() noexcept;

 private:
  using Clock = std::chrono::steady_clock;

  ThreadStopper(FileDescriptor tasks, std::chrono::milliseconds timeout)
      : tasks_(std::move(tasks)), timeout_(timeout) {}
  struct Unstopped {
    pid_t thread = 0;  // 0: none
    int error = 0;     // why it got no signal; 0: it got one
  };
  Unstopped signal_new_threads() noexcept;
  bool wait_for(std::size_t slot, Clock::time_point deadline) const noexcept;
  bool sleeps(std::size_t slot) const noexcept;
  std::size_t count() const noexcept;

  FileDescriptor tasks_;  // /proc/self/task
  std::chrono::milliseconds timeout_;
  std::size_t known_ = 0;
};

}  // namespace cowshed::settling
