#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cowshed::cowtop::live {

enum class Align : bool { left, right };

// Exactly so many columns of a terminal: filled with spaces, or cut, which its last character says.
// `text` is printable (figures.h).  Without `unicode`, what is no ASCII becomes '?'.
std::string fit(std::string_view text, int columns, bool unicode, Align align = Align::left);

// The columns that printable text takes.
int columns_of(std::string_view text);

// Lines of at most so many columns, broken at spaces where there are any.  Lines that go on are
// indented.
std::vector<std::string> wrap(std::string_view text, int columns);

// Upper and lower case of ASCII are the same.
bool contains(std::string_view text, std::string_view part);

// The UTF-8 of a character.
std::string utf8(char32_t character);

}  // namespace cowshed::cowtop::live
