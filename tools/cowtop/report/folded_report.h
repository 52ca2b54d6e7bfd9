#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// Pages copied, by the stack that copied them: the command's name, then the functions from the
// outermost to the innermost, a ';' between each two.  What has no stack is "[not sampled]".  In
// all exactly the measurement's copied pages, where these are known.
//
// Calls back with the number of the process, in `measurement`, its stack and the pages.
void for_each_stack(
    const cow::Measurement& measurement,
    const std::function<void(std::size_t, const std::string&, std::uint64_t)>& callback);

// The same added up by stack.
std::map<std::string, std::uint64_t> folded_copies(const cow::Measurement& measurement);

// A line for each, as flamegraph.pl, inferno and speedscope read them.
std::string folded_report(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
