#pragma once

#include <string>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// folded_copies() in the file format of speedscope (https://www.speedscope.app).
std::string speedscope_report(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
