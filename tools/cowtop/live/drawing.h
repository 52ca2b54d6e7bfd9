#pragma once

#include <cowshed/tools/cowtop/live/state.h>
#include <cowshed/tools/cowtop/live/terminal/surface.h>

namespace cowshed::cowtop::live {

// Draws the whole live view on an empty surface.  `state` must have its size.
void draw(const State& state, Surface& surface);

}  // namespace cowshed::cowtop::live
