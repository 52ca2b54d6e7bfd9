#pragma once

#include <string>
#include <string_view>

namespace cowshed::cowtop {

// The page (page.html and what it is made of, in this folder) with `json` as its data, for its
// scripts to show.  It fetches nothing, and runs nothing that the data might hold.
std::string html_page(std::string_view json);

}  // namespace cowshed::cowtop
