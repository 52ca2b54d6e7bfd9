#pragma once

#include <cstddef>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/process_copies.h>

// A job that forks for as long as it is measured must not take ever more memory.  So of very many
// processes that have ended only some stay as they are: the first process, those that others still
// descend from, and those that copied most.  The others are added up, by the nearest process above
// them that stays, by name, and by whether they called exec.
namespace cowshed::cow {

struct MergedProcess {
  std::size_t into = 0;  // the earliest of those that are to be one; its own index: it stays
  pid_t ppid = 0;        // of the sum; its own, where it stays as it is
};

// What is to become of each of `processes`, which are in order of start as in a Measurement.
// `may_be_merged`: of which nothing more is to come.  Nothing, where these are not more than
// `most`; else at most half as many stay as they are.
std::vector<MergedProcess> merge_ended(const std::vector<ProcessCopies>& processes,
                                       const std::vector<bool>& may_be_merged, std::size_t most);

// Adds one that has ended; but for what was sampled of its copies, which whoever samples adds up.
void add_to(ProcessCopies& sum, const ProcessCopies& more);

}  // namespace cowshed::cow
