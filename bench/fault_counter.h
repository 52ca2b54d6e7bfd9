#pragma once

#include <cstdint>
#include <string>

namespace cowshed::bench {

// Counts the page faults that the calling thread raises from user mode, from construction on: the
// exceptions by perf_event_open(2), or, where that is refused, the faults by getrusage(2), which
// also has those of system calls.
class FaultCounter {
 public:
  FaultCounter();
  ~FaultCounter();
  FaultCounter(const FaultCounter&) = delete;
  FaultCounter& operator=(const FaultCounter&) = delete;

  std::uint64_t count() const;
  static std::string source();  // for a report

 private:
  std::uint64_t rusage_start_ = 0;
  int fd_;
};

}  // namespace cowshed::bench
