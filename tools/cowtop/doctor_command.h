#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// What it calls itself with, to be measured (ground_truth.h).
inline constexpr const char* kGroundTruthWord = "--be-ground-truth";

// `cowtop doctor`: says what can be measured here.  Returns the exit status: 0 if any backend
// works, else kOwnError.
int doctor_command(std::vector<std::string> words);

}  // namespace cowshed::cowtop
