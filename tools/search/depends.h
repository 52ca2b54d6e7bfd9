#pragma once

#include <functional>
#include <string_view>

namespace cowshed::search {

// Calls `add` with the package names of a Depends field, "a (>= 1), b:any | c": a, then b.  Of
// alternatives the first that `exists`; versions and architectures are left out.
void for_each_dependency(std::string_view field,
                         const std::function<bool(std::string_view)>& exists,
                         const std::function<void(std::string_view)>& add);

}  // namespace cowshed::search
