#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace cowshed::search {

struct WorkerRun {
  int rank = 0;
  pid_t pid = 0;
  std::uint64_t fork_ns = 0;
  double busy_s = 0;
  // Private_Dirty when the worker began and when it had answered all.
  std::uint64_t private_bytes_at_start = 0;
  std::uint64_t private_bytes_at_end = 0;
  // Where the index is in an arena: private copies of its pages, and frees that it ignored.
  std::optional<std::uint64_t> arena_copied_bytes;
  std::optional<std::uint64_t> arena_dropped_frees;

  std::uint64_t private_growth() const {
    return private_bytes_at_end - std::min(private_bytes_at_start, private_bytes_at_end);
  }
};

struct Outcome {
  // The same for the same lists and arguments, whatever the storage.
  std::size_t lists = 0;
  std::size_t records = 0;
  std::size_t words = 0;
  std::size_t dependencies = 0;
  std::size_t warm_pages = 0;
  std::size_t queries = 0;
  std::vector<std::string> sample;  // the first answers
  std::uint64_t digest = 0;         // of all answers, in the order of the queries
  std::uint64_t references_copied = 0;
  std::uint64_t frees = 0;

  // This run only.
  std::string storage;
  std::uint64_t index_bytes = 0;
  double build_s = 0;
  double publish_s = 0;  // for the arena: its freeze
  std::vector<WorkerRun> workers;

  std::uint64_t total_private_bytes() const {
    std::uint64_t total = 0;
    for (const auto& worker : workers) {
      total += worker.private_bytes_at_end;
    }
    return total;
  }
};

}  // namespace cowshed::search
