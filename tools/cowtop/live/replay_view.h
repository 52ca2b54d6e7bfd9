#pragma once

#include <string>

namespace cowshed::cowtop::live {

// The view of a recording, until a key ends it.  Returns the exit status (exit_status.h).
int replay(const std::string& path);

}  // namespace cowshed::cowtop::live
