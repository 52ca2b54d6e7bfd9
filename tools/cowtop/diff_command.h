#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// `cowtop diff`: compares two measurements.  Returns the exit status (exit_status.h).
int diff_command(std::vector<std::string> words);

}  // namespace cowshed::cowtop
