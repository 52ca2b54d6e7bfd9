#pragma once

#include <string>
#include <vector>

#include <cowshed/tools/cowtop/check/verdict.h>

namespace cowshed::cowtop {

// "child 1234 (worker)", "tree", "object 'index' in child 1234 (worker)".
std::string subject_text(const Held& held);
// "limited to 64.0 MiB, used 71.3 MiB; culprits: object 'index' 40.0 MiB, ...".
std::string used_text(const Held& held);

// What is over, the worst first, a line each; of many, how many more.
std::vector<std::string> over_lines(const Verdict& verdict);
// "child 1234 (worker): limited to ..., used ...", of each limit whoever comes nearest to it.
std::string within_line(const Verdict& verdict);

// GitHub's workflow commands: an annotation for everything that is over, at the place in the source
// that copied most where that is known, and for each limit to which nothing could be held.
std::string verdict_annotations(const Verdict& verdict, Severity severity);

// One JSON object, schema cowshed.check/1.
std::string verdict_json(const Verdict& verdict);

// JUnit XML: a test case for each limit and process, named as in the next run: "max_copied: child 1
// (worker)" is of the first process below the root.  What is over has failed, what is not known is
// skipped, and a limit to which nothing could be held is an error.  As a warning both pass, and
// their system-out says it.
std::string verdict_junit(const Verdict& verdict, Severity severity);

}  // namespace cowshed::cowtop
