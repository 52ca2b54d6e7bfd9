#pragma once

#include <string>
#include <utility>
#include <vector>

#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/text/causes.h>

namespace cowshed::cowtop {

// A remedy that needs no edit of the program: its environment, or a command before its own.
struct Cure {
  std::string name;  // "MALLOC_ARENA_MAX=2"
  // A command line without the measured command; or, of a remedy that is tried by a file of ours,
  // what to do for good.
  std::string keep;
  bool is_cowshed_run = false;
  // "{}" in the values is the folder of `files`.
  std::vector<std::pair<std::string, std::string>> environment = {};
  std::vector<std::pair<std::string, std::string>> files = {};  // names and contents
};

// Those that the evidence supports, the least intrusive last.  `language`: of the command, where
// the measurement does not tell.  `threads`: the most that a process was seen to have.
std::vector<Cure> cures_for(const cow::Measurement& measurement, const Summary& summary,
                            Language language = Language::native, int threads = 1);

}  // namespace cowshed::cowtop
