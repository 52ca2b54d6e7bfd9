#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// Calls back with the index of a process, a stack, and the pages that the stack copied.  A stack is
// the command's name and its functions from the outermost to the innermost, separated by ';'.
// Copies without a stack are "[not sampled]".  The pages add up to the known copied pages.
void for_each_stack(
    const cow::Measurement& measurement,
    const std::function<void(std::size_t, const std::string&, std::uint64_t)>& callback);

// Returns the sums by stack.
std::map<std::string, std::uint64_t> folded_copies(const cow::Measurement& measurement);

// Returns a line for each stack, for flamegraph.pl, inferno and speedscope.
std::string folded_report(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
