#pragma once

#include <string>
#include <vector>

#include <cowshed/tools/cowtop/live/state.h>

namespace cowshed::cowtop::live {

std::string pane_title(const State& state);

// What the open pane says, as wide as the screen is.
std::vector<std::string> pane_lines(const State& state, int columns);
int pane_height(const State& state);  // how many lines these are

}  // namespace cowshed::cowtop::live
