#pragma once

#include <string>

namespace cowshed::cowtop {

// What a report of a problem needs: the release on the first line, then what was built and of
// what, the libraries that are loaded, and the kernel that runs.  No newline at the end.
std::string version_text();

}  // namespace cowshed::cowtop
