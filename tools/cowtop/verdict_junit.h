#pragma once

#include <string>

#include <cowshed/tools/cowtop/verdict.h>

namespace cowshed::cowtop {

// JUnit XML: a test case for each limit and process, named as in the next run: "max_copied: child 1
// (worker)" is of the first process below the root.  What is over has failed, what is not known is
// skipped, and a limit to which nothing could be held is an error.  As a warning both pass, and
// their system-out says it.
std::string verdict_junit(const Verdict& verdict, Severity severity);

}  // namespace cowshed::cowtop
