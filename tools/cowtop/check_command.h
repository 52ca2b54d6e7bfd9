#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// cowtop check: `words` follow it.  Returns the status to exit with.
int check_command(std::vector<std::string> words);

}  // namespace cowshed::cowtop
