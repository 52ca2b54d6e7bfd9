#pragma once

#include <string>
#include <string_view>

namespace cowshed::internal {

// Shortens a type's name for people: drops std:: and default template arguments, and writes
// "string" for std::basic_string<char>.  `compiler_name` is type_name<T>().  Returns a name that it
// cannot parse unchanged.
std::string readable_type(std::string_view compiler_name);

}  // namespace cowshed::internal
