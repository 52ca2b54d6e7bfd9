#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// Returns the report for people: a heading, one row per process in order of start, and a total.
// Plain text without colour.  "-" is an unknown figure.
std::string table_report(const cow::Measurement& measurement);

// Returns what could not be measured or read, and what would help; the first
// `most` of either.
std::string lacking_lines(const cow::Measurement& measurement, std::size_t most = SIZE_MAX);

// Returns the lines below the table for one process.
std::string process_report(const cow::Measurement& measurement, const cow::ProcessCopies& process);

}  // namespace cowshed::cowtop
