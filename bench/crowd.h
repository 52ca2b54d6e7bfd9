#pragma once

#include <cstddef>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/share/forkserver.h>

#include "bare_worker.h"

namespace cowshed::bench {

// Workers that all live at the same time, by a method of Starter's.
struct Crowd {
  double begun_us;           // from the call until the last has begun
  double ended_us;           // from their release until the last has been reaped
  std::size_t table_bytes;   // page tables of all: VmPTE
  std::size_t memory_bytes;  // of all, of the process that started them, and its forkserver: PSS
  std::vector<pid_t> pids;   // of those that are processes
};

// The bytes are 0 unless `look`.  Throws std::runtime_error.
Crowd start_crowd(const std::string& method, int count, const ForkServer* server, bool look);

// What it asks of this program, whose main() begins with is_worker().
extern const NamedTask stand_task;

}  // namespace cowshed::bench
