#pragma once

#include <string>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// The report for people: a heading, one row per process in order of start, a total.  Plain text
// without colour.  "-" is a figure that the backend cannot know.
std::string table_report(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
