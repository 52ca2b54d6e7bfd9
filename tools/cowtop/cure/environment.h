#pragma once

#include <string>

#include <cowshed/tools/cowtop/analysis/remedies.h>

namespace cowshed::cowtop {

// Adds what the environment of the caller sets already: a setting of a list is added to it.
// Returns why the remedy cannot be, or "".
std::string keep_environment(Cure& cure);

}  // namespace cowshed::cowtop
