#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// What memory would be needed if something were otherwise, by simple arithmetic on what was
// measured.  An estimate: of workers that took each other's places it takes the most that were
// alive at once, and more of them to copy as much as these did.  What each worker allocates for
// itself is in none of the figures.
//
// A worker is a child that was forked with its parent's memory and has not executed another
// program.  When those were alive that are added up (ended_processes.h) is not known: they are
// taken to have lived as long as the others on average, evenly spread.
struct Estimate {
  std::uint64_t workers = 0;  // the most at once
  // What they shared at their forks.  Workers of one parent share the same memory, the most that
  // one of them did; those of different parents share different memory, but for what a parent that
  // is a worker itself has of its own parent.
  std::uint64_t shared_bytes = 0;
  std::uint64_t copied_bytes = 0;  // of these
  // Each worker, and who starts them, with all of it for itself: spawn, or exec.
  std::uint64_t bytes_by_spawn = 0;

  // What would not have been copied of it, if nobody wrote to it: in a frozen arena, say.
  struct Frozen {
    std::string name;  // "object 'index' of arena 'words'", "mapping '[heap]'"
    std::uint64_t bytes = 0;
  };
  std::vector<Frozen> frozen;  // the most first, at most 3

  // Shared once, and the copies of so many times as many workers.
  std::uint64_t bytes_with_workers(std::uint64_t times) const;
};

// nullopt where there is no worker of which both figures are known, or all of them were added up.
std::optional<Estimate> estimate(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
