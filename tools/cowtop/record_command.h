#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// `cowtop record`: measures as cowtop does, into a file.  Returns the exit status (exit_status.h).
int record_command(std::vector<std::string> words);

}  // namespace cowshed::cowtop
