#pragma once

#include <string>
#include <string_view>

namespace cowshed::cowtop {

// A command's name holds any bytes: no control characters must reach the terminal, nor half of a
// UTF-8 character.  Each such byte becomes '?'.
std::string printable(std::string_view text);

}  // namespace cowshed::cowtop
