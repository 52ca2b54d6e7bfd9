#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/backend.h>

namespace cowshed::cowtop {

enum class Diff : std::uint8_t { none, at_intervals, at_exit };

struct Options {
  std::vector<std::string> command;
  std::optional<pid_t> attach_pid;
  cow::BackendChoice backend = cow::BackendChoice::automatic;
  bool json = false;
  SamplingOptions sampling;  // period 0: no code sites asked for
  Timing timing = Timing::off;
  Diff diff = Diff::none;
  std::string output;  // empty: standard output
};

// What main has to do next: run with these options, or exit at once with a status.
struct ParsedArguments {
  Options options;
  std::optional<int> exit_status;
};

// Prints help, version and usage errors itself.
ParsedArguments parse_arguments(int argc, const char* const* argv);

}  // namespace cowshed::cowtop
