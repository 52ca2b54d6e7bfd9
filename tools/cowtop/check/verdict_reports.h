#pragma once

#include <string>
#include <vector>

#include <cowshed/tools/cowtop/check/verdict.h>

namespace cowshed::cowtop {

// Returns "child 1234 (worker)", "tree", "object 'index' in child 1234 (worker)".
std::string subject_text(const Held& held);
// Returns "limited to 64.0 MiB, used 71.3 MiB; culprits: object 'index' 40.0 MiB, ...".
std::string used_text(const Held& held);

// Returns a line for each exceeded limit, the worst first.  After 20 lines it only counts.
std::vector<std::string> over_lines(const Verdict& verdict);
// Returns "child 1234 (worker): limited to ..., used ..." for the process nearest to each limit.
std::string within_line(const Verdict& verdict);

// Returns GitHub workflow commands: an annotation for each exceeded limit, at the source line that
// copied most if known, and for each limit that could not be judged.
std::string verdict_annotations(const Verdict& verdict, Severity severity);

// Returns one JSON object, schema cowshed.check/1.
std::string verdict_json(const Verdict& verdict);

// Returns JUnit XML with a test case for each limit and process, without processes within it that
// only ran a program.  Names are the same in each run: "max_copied: child 1 (worker)" is the first
// worker below the root.  An exceeded limit is a
// failure, an unknown figure is skipped, and a limit that could not be judged is an error.  With
// Severity::warning both pass, with the message in system-out.
std::string verdict_junit(const Verdict& verdict, Severity severity);

}  // namespace cowshed::cowtop
