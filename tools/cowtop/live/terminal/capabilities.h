#pragma once

#include <string>

namespace cowshed::cowtop::live {

// Whether standard output's terminal, as TERM has it, can place text.
bool can_place_text();

// The sequence of that name, terminfo(5), of the terminal that is open; empty: it has none.
std::string capability(const char* name);

}  // namespace cowshed::cowtop::live
