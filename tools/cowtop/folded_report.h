#pragma once

#include <cstdint>
#include <map>
#include <string>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// Pages copied, by the stack that copied them: the command's name, then the functions from the
// outermost to the innermost, a ';' between each two.  What has no stack is "[not sampled]".  In
// all exactly the measurement's copied pages, where these are known.
std::map<std::string, std::uint64_t> folded_copies(const cow::Measurement& measurement);

// A line for each, as flamegraph.pl, inferno and speedscope read them.
std::string folded_report(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
