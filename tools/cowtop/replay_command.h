#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// `cowtop replay`: the live view of a recording.  Returns the exit status (exit_status.h).
int replay_command(std::vector<std::string> words);

}  // namespace cowshed::cowtop
