#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include <cowshed/cow/process_copies.h>

// A job that forks for as long as it is measured must not take ever more memory.  So of very many
// processes that have ended only the first and those that copied most stay as they are.  The others
// are added up, by the nearest process above them that stays, by name, and by whether they called
// exec.
namespace cowshed::cow {

struct EndedProcess {
  ProcessCopies* copies = nullptr;
  bool may_be_merged = false;  // nothing more of it is to come
};

// Of all processes, in order of start as in a Measurement.  Does nothing where at most `most` may
// be merged; else at most half as many rows are left of those.  Calls `merged` with the index of
// each process that was added to an earlier one, and of that: it is to be forgotten.
void merge_ended(const std::vector<EndedProcess>& processes, std::size_t most,
                 const std::function<void(std::size_t, std::size_t)>& merged);

// Adds one that has ended; but for what was sampled of its copies, which whoever samples adds up.
void add_to(ProcessCopies& sum, const ProcessCopies& more);

}  // namespace cowshed::cow
