#pragma once

#include <cstddef>
#include <vector>

namespace cowshed {

// A run of an arena's 2 MiB ranges, as offsets from its base.
struct Run {
  std::size_t begin;
  std::size_t end;
};

// Adds a run that does not begin before the last one; they become one where at most `gap` bytes are
// between them.
void append(std::vector<Run>& runs, const Run& run, std::size_t gap = 0);

// The same runs, in order, neighbours as one.
std::vector<Run> joined(std::vector<Run> runs);

std::size_t size_of(const std::vector<Run>& runs);

// What is in `runs` and not in `holes`; both in order.
std::vector<Run> without(const std::vector<Run>& runs, const std::vector<Run>& holes);

}  // namespace cowshed
