#pragma once

#include <optional>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/measure/measure_options.h>
#include <cowshed/tools/cowtop/report/text_report.h>

namespace cowshed::cowtop {

// The options of cowtop without a subcommand.
struct Options {
  MeasureOptions measure;
  bool json = false;
  TextForm text;
  bool live = false;   // if there is a terminal
  std::string output;  // empty: standard output
};

// Run with these options, or exit at once if there is a status.
struct ParsedArguments {
  Options options;
  std::optional<int> exit_status;
};

// Parses the words after the program's name.  Prints help and version.  Errors: invalid_argument.
Expected<ParsedArguments> parse_arguments(std::vector<std::string> words);

}  // namespace cowshed::cowtop
