#pragma once

#include <cstdint>

#include <cowshed/base/error.h>
#include <cowshed/cow/backend.h>

namespace cowshed::cowtop {

// A process that shares its memory with one child after the other, of which the first writes to
// none of it and the second to kGroundTruthPages, and which are otherwise the same: that one copies
// so many pages more.
inline constexpr std::uint64_t kGroundTruthPages = 600;
// After `cowtop doctor`: be that process.
inline constexpr const char* kGroundTruthWord = "--be-ground-truth";

// Is that process.  The children linger, for a backend that looks now and then.
void be_ground_truth();

// Has `backend` measure it, in a run of this program's own, and returns how many pages more the
// second child copied.  Errors: those of the backend; unsupported where it did not find both.
Expected<std::uint64_t> measure_ground_truth(cow::Backend& backend);

}  // namespace cowshed::cowtop
