#pragma once

#include <cstdint>

#include <cowshed/base/error.h>
#include <cowshed/cow/backend.h>

namespace cowshed::cowtop {

// The number of pages that the second child of the ground truth copies more than the first.  The
// ground truth is a process with two equal children, of which only the second writes to its pages.
inline constexpr std::uint64_t kGroundTruthPages = 600;
// The argument of `cowtop doctor` that makes it the ground truth.
inline constexpr const char* kGroundTruthWord = "--be-ground-truth";

// Runs the ground truth.  The children linger, so that a sampling backend sees them.
void be_ground_truth();

// Runs this program as the ground truth, measures it with `backend`, and returns the difference of
// the two children in pages.  Errors: those of the backend; unsupported if it did not see both.
Expected<std::uint64_t> measure_ground_truth(cow::Backend& backend);

}  // namespace cowshed::cowtop
