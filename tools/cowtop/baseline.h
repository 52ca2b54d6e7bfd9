#pragma once

#include <string>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/verdict.h>

namespace cowshed::cowtop {

// Of a recording, or of a JSON report (cowshed.run/2).  Errors: those of the file; bad_recording,
// also where it does not know what anybody copied.
Expected<Baseline> read_baseline(const std::string& path);

}  // namespace cowshed::cowtop
