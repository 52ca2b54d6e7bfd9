#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// cowtop serve, with the words after it.  Returns the exit status.
int serve_command(std::vector<std::string> words);

}  // namespace cowshed::cowtop
