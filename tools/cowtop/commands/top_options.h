#pragma once

#include <optional>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/measure/measure_options.h>

namespace cowshed::cowtop {

// Of cowtop without a subcommand.
struct Options {
  MeasureOptions measure;
  bool json = false;
  bool live = true;    // where there is a terminal for it
  std::string output;  // empty: standard output
};

// What to do next: run with these options, or exit at once with a status.
struct ParsedArguments {
  Options options;
  std::optional<int> exit_status;
};

// Prints help and version itself.  `words` are those after the program's name.  Errors:
// invalid_argument.
Expected<ParsedArguments> parse_arguments(std::vector<std::string> words);

}  // namespace cowshed::cowtop
