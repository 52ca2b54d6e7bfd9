#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace cowshed::internal {

// Without control characters; what is beyond 2 KiB is cut off.
std::string one_line(std::string_view text);
// A mangled name as in the source; what is none stays as it is.
std::string demangled(const char* name);
// Its what() in one line, or its type where that is null.
std::string text_of(const std::exception& exception);
// Of the one that is being handled.
std::string text_of_current_exception();

}  // namespace cowshed::internal
