#pragma once

#include <string>

#include <cowshed/tools/cowtop/verdict.h>

namespace cowshed::cowtop {

// GitHub's workflow commands: an annotation for everything that is over, at the place in the source
// that copied most where that is known, and for each limit to which nothing could be held.
std::string verdict_annotations(const Verdict& verdict, Severity severity);

}  // namespace cowshed::cowtop
