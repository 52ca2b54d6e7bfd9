#pragma once

#include <string>

#include <cowshed/tools/search/outcome.h>

namespace cowshed::search {

// For people: two parts, the second of which begins with a line "This run:".
std::string text_report(const Outcome& outcome);

// For programs, schema cowshed.search/1: "same" holds what does not depend on storage and run.
std::string json_report(const Outcome& outcome);

}  // namespace cowshed::search
