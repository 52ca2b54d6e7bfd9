#pragma once

#include <string>

#include <cowshed/cow/sampled_copies.h>

namespace cowshed::cowtop {

// "fill() fill.cc:12", or what else there is to say where it is.
std::string frame_text(const cow::Frame& frame);

// What every report calls the site: its place in the program.
std::string site_name(const cow::CodeSite& site);

}  // namespace cowshed::cowtop
