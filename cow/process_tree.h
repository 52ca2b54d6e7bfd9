#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cow {

// A process and all its descendants, ended ones included.
struct Subtree {
  std::uint64_t processes = 1;
  // The sum of the known counts; nullopt: none is known.
  std::optional<std::uint64_t> copied_pages;
};

// Returns the index of each process's parent, or its own index if it has none.  `processes` are in
// order of start, as in a Measurement.  If there is exactly one root, it is the parent of each
// process whose parent was not seen.
std::vector<std::size_t> parents(const std::vector<ProcessCopies>& processes);

// Returns the subtree of each process.
std::vector<Subtree> subtrees(const std::vector<ProcessCopies>& processes);

}  // namespace cowshed::cow
