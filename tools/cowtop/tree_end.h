#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <sys/types.h>
#include <utility>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// Ends measured processes while they are being measured: SIGTERM to each that is alive, also to
// those that start meanwhile, and SIGKILL to those that are alive 5 s later.
class TreeEnd {
 public:
  // After each sample.  False once none is left, or none that can be ended, and that has been said.
  // `ended`: the PID of one that has ended, whatever the sample says; 0: of none.
  bool go_on(const cow::Measurement& measurement, pid_t ended);
  // Whether anything was asked to end, and whether the process with this PID was.
  bool has_begun() const { return !asked_.empty(); }
  bool has_asked(pid_t pid) const;

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  using Process = std::pair<pid_t, std::uint64_t>;  // and the moment of its start
  std::set<Process> asked_;
  std::set<Process> refused_;
  bool has_complained_ = false;
};

}  // namespace cowshed::cowtop
