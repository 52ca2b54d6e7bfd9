#pragma once

#include <cstddef>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/share/forkserver.h>

namespace cowshed::bench {

// Workers that all live at the same time, by the library's "fork", "spawn" or "forkserver".
struct Crowd {
  double begun_us;           // from the call until the last has begun
  double ended_us;           // from their release until the last has been reaped
  std::size_t table_bytes;   // page tables of all: VmPTE
  std::size_t memory_bytes;  // of all, of the process that started them, and its forkserver: PSS
  std::vector<pid_t> pids;
};

// The bytes are 0 unless `look`.  Throws std::runtime_error.
Crowd start_crowd(const std::string& method, int count, const ForkServer* server, bool look);

}  // namespace cowshed::bench
