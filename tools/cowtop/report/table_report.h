#pragma once

#include <string>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// The report for people: a heading, one row per process in order of start, a total.  Plain text
// without colour.  "-" is a figure that the backend cannot know.
std::string table_report(const cow::Measurement& measurement);

// What the report's lines below the table say of one of its processes.
std::string process_report(const cow::Measurement& measurement, const cow::ProcessCopies& process);

}  // namespace cowshed::cowtop
