#pragma once

#include <cowshed/tools/cowtop/live/state.h>
#include <cowshed/tools/cowtop/live/terminal/surface.h>

namespace cowshed::cowtop::live {

// All of a screen, which is empty before.  `state` has been told its size.
void draw(const State& state, Surface& surface);

}  // namespace cowshed::cowtop::live
