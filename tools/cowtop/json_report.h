#pragma once

#include <string>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// The object of schema cowshed.run/1, one line per field, with a newline at the end.  A figure that
// the backend cannot know is null.
std::string json_report(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
