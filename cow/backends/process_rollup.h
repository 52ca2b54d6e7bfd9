#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include <cowshed/cow/measurement.h>

// A job that forks for as long as it is measured must not take ever more memory.  So of very many
// processes that have ended only the first and those that copied most stay as they are.  The others
// are added up, by the nearest process above them that stays, by name, and by whether they called
// exec.
namespace cowshed::cow {

struct EndedProcess {
  ProcessCopies* copies = nullptr;
  bool may_be_merged = false;  // nothing more of it is to come
};

// Merges ended processes when more than `most` may be merged, until at most half of `most` are
// left.  `processes` are all, in order of start as in a Measurement.  For each merged process calls
// `merged` with its index and the index of the earlier process that it is added to; the caller
// forgets it.
void merge_ended(const std::vector<EndedProcess>& processes, std::size_t most,
                 const std::function<void(std::size_t, std::size_t)>& merged);

// Adds one that has ended; but for what was sampled of its copies, which whoever samples adds up.
void add_to(ProcessCopies& sum, const ProcessCopies& more);

}  // namespace cowshed::cow
