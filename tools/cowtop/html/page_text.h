#pragma once

#include <string_view>

namespace cowshed::cowtop {

// Return the page before and after its data.  PageText.cmake generates their source.
std::string_view page_begin();
std::string_view page_end();

}  // namespace cowshed::cowtop
