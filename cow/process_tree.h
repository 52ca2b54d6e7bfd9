#pragma once

#include <cstddef>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cow {

// Returns the index of each process's parent, or its own index if it has none.  `processes` are in
// order of start, as in a Measurement.  If there is exactly one root, it is the parent of each
// process whose parent was not seen.
std::vector<std::size_t> parents(const std::vector<ProcessCopies>& processes);

}  // namespace cowshed::cow
