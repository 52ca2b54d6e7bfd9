#pragma once

#include <string>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/input_file.h>

namespace cowshed::cowtop {

// All that is in it, or still to be read.  Errors: system_call; bad_recording where that is
// more than 256 MiB.
Expected<std::string> read_text_file(const std::string& path);
Expected<std::string> read_text(InputFile& file);

}  // namespace cowshed::cowtop
