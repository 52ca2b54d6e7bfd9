#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/command.h>
#include <cowshed/cow/open_backend.h>
#include <cowshed/tools/cowtop/measure/selection.h>
#include <cowshed/tools/cowtop/measure/selection_options.h>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cowshed::cowtop {

// What to measure, and how: the same for every subcommand that measures.
struct MeasureOptions {
  std::vector<std::string> command;
  std::optional<Selection> selection;  // one of the two
  std::optional<cow::User> user;       // that the command runs as, if not as we do
  cow::BackendChoice backend = cow::BackendChoice::automatic;
  SamplingOptions sampling;  // period 0: no code sites asked for
  // Takes ever more memory while processes come and go.
  bool keeps_each_process = false;
};

// The options of a command line that say so.  `app` must outlive it.
class MeasureArguments {
 public:
  // What it means to give neither a command nor which processes.
  enum class Otherwise : std::uint8_t { is_wrong, everything };
  MeasureArguments(CLI::App& app, Otherwise otherwise);
  MeasureArguments(const MeasureArguments&) = delete;
  MeasureArguments& operator=(const MeasureArguments&) = delete;
  ~MeasureArguments() = default;

  // After `app` has parsed.  `command` is what came after the options.  Errors: invalid_argument.
  Expected<MeasureOptions> options(std::vector<std::string> command) const;

 private:
  Otherwise otherwise_;
  SelectionArguments selected_;
  std::string user_;
  bool sites_ = false;
  std::uint32_t period_ = 0;
  CLI::Option* run_as_;
  CLI::Option* count_;
};

}  // namespace cowshed::cowtop
