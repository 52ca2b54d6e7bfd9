#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include <cowshed/cow/measurement.h>

// Limits the memory for ended processes.  If there are very many, only the first and those with the
// most copies stay.  The others are added up by their nearest remaining ancestor, their name, and
// whether they called exec.
namespace cowshed::cow {

struct EndedProcess {
  ProcessCopies* copies = nullptr;
  bool may_be_merged = false;  // its figures are final
};

// Merges ended processes if more than `most` may be merged, until at most half of `most` are left.
// `processes` are all processes in order of start.  Calls `merged` with the index of each merged
// process and of the earlier process that it was added to.  The caller then forgets the former.
void merge_ended(const std::vector<EndedProcess>& processes, std::size_t most,
                 const std::function<void(std::size_t, std::size_t)>& merged);

// Adds an ended process to a sum, without its sampled copies.
void add_to(ProcessCopies& sum, const ProcessCopies& more);

}  // namespace cowshed::cow
