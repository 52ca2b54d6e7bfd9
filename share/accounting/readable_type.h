#pragma once

#include <string>
#include <string_view>

namespace cowshed {

// A type's name for people: without std::, default allocators, comparisons and the like, and
// "string" for what it is; `compiler_name` as type_name<T>() gives it.  What it cannot read stays
// as it is.
std::string readable_type(std::string_view compiler_name);

}  // namespace cowshed
