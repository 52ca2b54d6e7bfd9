#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cowshed::cowtop::live {

enum class Align : bool { left, right };

// Fits printable text (figures.h) into exactly `columns` of a terminal: pads it with spaces, or
// cuts it with a mark at the end.  Without `unicode`, other characters than ASCII become '?'.
std::string fit(std::string_view text, int columns, bool unicode, Align align = Align::left);

// Returns the columns of printable text.
int columns_of(std::string_view text);

// Wraps text to lines of at most `columns`, at spaces if possible.  Continued lines are indented.
std::vector<std::string> wrap(std::string_view text, int columns);

// Whether `text` contains `part`.  Ignores the case of ASCII.
bool contains(std::string_view text, std::string_view part);

}  // namespace cowshed::cowtop::live
