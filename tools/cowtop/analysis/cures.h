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
  std::vector<std::pair<std::string, std::string>> environment =
      {};                                // "{}" is the folder of `files`
  std::vector<std::string> prefix = {};  // words before the command: {"cowshed", "run", "--"}
  // Names and contents of the files of ours that it is tried with, and what to do for good instead.
  std::vector<std::pair<std::string, std::string>> files = {};
  std::string for_good = {};
};

// Those that the evidence supports, the least intrusive last.  `language`: of the command, where
// the measurement does not tell.  `threads`: the most that a process was seen to have.
std::vector<Cure> cures_for(const cow::Measurement& measurement, const Summary& summary,
                            Language language = Language::native, int threads = 1);

// All that a measurement of a command in this language may support; native: in any.
std::vector<Cure> possible_cures(Language language);

// Adds what the environment of the caller sets already: a setting of a list is added to it.
// Returns why the remedy cannot be, or "".
std::string keep_environment(Cure& cure);

}  // namespace cowshed::cowtop
