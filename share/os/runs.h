#pragma once

#include <cstddef>
#include <vector>

// Sets of an arena's 2 MiB ranges.
namespace cowshed::internal {

// Neighbouring ranges, as offsets from the arena's begin.
struct Run {
  std::size_t begin;
  std::size_t end;
};

// Appends a run that does not begin before the last one.  Joins the two if at most `gap` bytes are
// between them.
void append(std::vector<Run>& runs, const Run& run, std::size_t gap = 0);

// Returns the same runs in order, with neighbours joined.
std::vector<Run> joined(std::vector<Run> runs);

std::size_t size_of(const std::vector<Run>& runs);

// Returns the parts of `runs` that are not in `holes`; both are in order.
std::vector<Run> without(const std::vector<Run>& runs, const std::vector<Run>& holes);

}  // namespace cowshed::internal
