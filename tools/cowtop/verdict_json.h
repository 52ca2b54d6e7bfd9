#pragma once

#include <string>

#include <cowshed/tools/cowtop/verdict.h>

namespace cowshed::cowtop {

// One JSON object, schema cowshed.check/1.
std::string verdict_json(const Verdict& verdict);

}  // namespace cowshed::cowtop
