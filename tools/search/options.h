#pragma once

#include <optional>
#include <string>

namespace cowshed::search {

struct Options {
  std::string storage;
  int workers = 4;
  std::size_t queries = 2000;
  std::size_t limit = 0;  // records; 0: all
  std::string lists = "/var/lib/apt/lists";
  int linger_ms = 300;
  bool json = false;
};

struct ParsedArguments {
  Options options;
  std::optional<int> exit_status;  // set when there is nothing to run: --help, or bad usage
};

ParsedArguments parse_arguments(int argc, const char* const* argv);

}  // namespace cowshed::search
