#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/verdict.h>

namespace cowshed::cowtop {

// "child 1234 (worker)", "tree", "object 'index' in child 1234 (worker)".
std::string subject_text(const Held& held);
// "limited to 64.0 MiB, used 71.3 MiB; culprits: object 'index' 40.0 MiB, ...".
std::string used_text(const Held& held);

// What is over, the worst first, a line each; of many, how many more.
std::vector<std::string> over_lines(const Verdict& verdict);
// "child 1234 (worker): limited to ..., used ...", of each limit whoever comes nearest to it.
std::string within_line(const Verdict& verdict);

}  // namespace cowshed::cowtop
