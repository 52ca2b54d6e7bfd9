#pragma once

#include <cowshed/tools/cowtop/options.h>

namespace cowshed::cowtop {

// Does what the options say, and returns cowtop's exit status (exit_status.h).
int run(const Options& options);

}  // namespace cowshed::cowtop
