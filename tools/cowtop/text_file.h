#pragma once

#include <string>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// All that is in it.  Errors: system_call.
Expected<std::string> read_text_file(const std::string& path);

}  // namespace cowshed::cowtop
