#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <sys/types.h>
#include <vector>

namespace cowshed::cow {

struct ForkEvent {
  pid_t parent = 0;
  pid_t child = 0;
  std::uint64_t ns = 0;  // CLOCK_MONOTONIC
};

// Every fork on the machine from now on, by the kernel's process events, which need no privilege
// since Linux 6.6 in the first PID and user namespaces (drivers/connector/cn_proc.c).  Threads are
// not among them.  A thread of its own keeps the socket's small buffer empty: some 2 us for each
// fork.  The kernel stops sending when this is destroyed, or its process ends.
class ForkEvents {
 public:
  // Null where the kernel does not send them, to us.
  static std::unique_ptr<ForkEvents> open();
  ForkEvents(const ForkEvents&) = delete;
  ForkEvents& operator=(const ForkEvents&) = delete;
  ~ForkEvents();

  struct Taken {
    std::vector<ForkEvent> events;  // since the last time; children after their parents
    bool complete = true;           // false from the first time on that some were lost
  };
  Taken take();
  std::uint64_t cpu_ns() const;  // what the thread has cost so far

 private:
  struct State;
  explicit ForkEvents(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace cowshed::cow
