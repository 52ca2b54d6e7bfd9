#pragma once

#include <string>

#include <cowshed/cow/sampled_copies.h>

namespace cowshed::cowtop {

// "fill() fill.cc:12", or what else there is to say where it is.
std::string frame_text(const cow::Frame& frame);

}  // namespace cowshed::cowtop
