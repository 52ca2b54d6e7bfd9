#pragma once

#include <string>
#include <vector>

namespace cowshed::cowtop {

// `cowtop report`: makes reports of a recording.  Returns the exit status (exit_status.h).
int report_command(std::vector<std::string> words);

}  // namespace cowshed::cowtop
