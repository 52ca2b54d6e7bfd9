#pragma once

#include <string_view>

namespace cowshed::cowtop {

// The page up to its data, and from there on.  Their source is made by PageText.cmake.
std::string_view page_begin();
std::string_view page_end();

}  // namespace cowshed::cowtop
