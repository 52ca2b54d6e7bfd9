#pragma once

#include <string>

namespace cowshed::cowtop::live {

// Whether the terminal of standard output, by TERM, can move the cursor.
bool can_place_text();

// Returns the sequence of a terminfo(5) name for the open terminal; empty: none.
std::string capability(const char* name);

}  // namespace cowshed::cowtop::live
