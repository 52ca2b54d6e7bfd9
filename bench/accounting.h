#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <sys/types.h>

#include "helper.h"
#include "taskstats.h"

namespace cowshed::bench {

// The kernel's own count of copies, by process and with their times, while this object lives: delay
// accounting (kernel.task_delayacct=1), whose figures taskstats sends when a process ends.  It is
// for processes that are forked meanwhile.  One process of the machine has it at a time, the others
// wait: whoever has one must not wait for a process that makes one.
class Accounting {
 public:
  // Throws std::runtime_error; so do the others.
  Accounting();

  // Of each process that has ended, by its PID.
  const std::map<pid_t, std::uint64_t>& copies() { return accounts_.wpcopy_counts(); }
  // Puts the setting back.
  void stop();

 private:
  Helper helper_;
  ExitAccounts accounts_;
};

// Why there can be none here; empty where there can.  Waits for whoever has it.  Not while this
// process has one.
std::string cannot_account();

}  // namespace cowshed::bench
