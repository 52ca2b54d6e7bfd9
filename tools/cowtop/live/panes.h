#pragma once

#include <string>
#include <vector>

#include <cowshed/tools/cowtop/live/state.h>

namespace cowshed::cowtop::live {

std::string pane_title(const State& state);

// Returns the lines of the open pane, wrapped to `columns`.
std::vector<std::string> pane_lines(const State& state, int columns);
int pane_height(const State& state);  // the number of these lines

}  // namespace cowshed::cowtop::live
