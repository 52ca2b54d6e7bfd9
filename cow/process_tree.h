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
  // Of those where it is known; nullopt: of none.
  std::optional<std::uint64_t> copied_pages;
};

// Of each of `processes`, which are in order of start as in a Measurement, where its parent is; its
// own index: there is none.  Of a process whose parent was not seen that is the root, where there
// is but one.
std::vector<std::size_t> parents(const std::vector<ProcessCopies>& processes);

// That of each of them.
std::vector<Subtree> subtrees(const std::vector<ProcessCopies>& processes);

}  // namespace cowshed::cow
