#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cow {

// A process and all its descendants, ended ones included.
struct Subtree {
  std::uint64_t processes = 1;
  // Of those where it is known; nullopt: of none.
  std::optional<std::uint64_t> copied_pages;
};

// That of each of `processes`, which are in order of start as in a Measurement.  A process whose
// parent was not seen counts for the root, where there is but one.
std::vector<Subtree> subtrees(const std::vector<ProcessCopies>& processes);

}  // namespace cowshed::cow
