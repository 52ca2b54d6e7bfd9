#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "holding.h"
#include "subject.h"

// Processes that hold data, fork, and start workers.
namespace cowshed::bench {

struct Held {
  std::string memory;  // see Holding
  std::size_t bytes;

  std::string name() const;  // "none", or as "arena/4GiB"
};

// Nothing, and every memory with 64 MiB and 4 GiB.
std::vector<Held> all_held();

// The process that holds it: one for all benchmarks of this process.  It answers
//   fork                   the ns that fork() takes it
//   start METHOD THREADS   of a worker, beside so many other threads: the ns from the call to its
//                          first line, to its answer about the data, and to its end
//   memory METHOD WORKERS  of workers that have read all the data: PSS of all processes and their
//                          page tables in bytes, and the ns from the first start until then
Subject& holder(const Held& held);

double time_fork();
std::vector<double> time_start(const std::string& method, Holding& holding, std::size_t threads);
std::vector<double> measure_memory(const std::string& method, Holding& holding, int workers);

}  // namespace cowshed::bench
