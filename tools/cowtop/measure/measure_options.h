#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/command.h>
#include <cowshed/cow/open_backend.h>
#include <cowshed/tools/cowtop/measure/selection.h>
#include <cowshed/tools/cowtop/measure/selection_options.h>

namespace cowshed::cowtop {

// The options of every subcommand that measures.
struct MeasureOptions {
  std::vector<std::string> command;
  std::optional<Selection> selection;  // instead of `command`
  std::optional<cow::User> user;       // that the command runs as; nullopt: ours
  cow::Streams streams;                // of the command
  cow::BackendChoice backend = cow::BackendChoice::automatic;
  SamplingOptions sampling;  // period 0: counts alone
  // Of what is attached to; nullopt: until it ends or Ctrl-C.
  std::optional<std::chrono::seconds> duration;
  // Compares all pages of all processes at doubling times, whatever that costs.
  bool compares_all = false;
  // Keeps every ended process, so memory grows without limit.
  bool keeps_each_process = false;
};

// How copies are sampled unless -c says otherwise.
SamplingOptions usual_sampling();

// Defines these options on a command line.  `app` must outlive it.
class MeasureArguments {
 public:
  // The meaning of a command line without a command and a selection.
  enum class Otherwise : std::uint8_t { is_wrong, everything };
  MeasureArguments(CLI::App& app, Otherwise otherwise);
  MeasureArguments(const MeasureArguments&) = delete;
  MeasureArguments& operator=(const MeasureArguments&) = delete;
  ~MeasureArguments() = default;

  // Call it after `app` has parsed.  `command` follows the options.  Errors: invalid_argument.
  Expected<MeasureOptions> options(std::vector<std::string> command) const;

 private:
  Otherwise otherwise_;
  SelectionArguments selected_;
  std::string user_;
  bool no_sites_ = false;
  bool alike_ = false;
  std::uint32_t period_ = 0;
  std::uint32_t seconds_ = 0;
  CLI::Option* run_as_;
  CLI::Option* count_;
  CLI::Option* duration_;
};

}  // namespace cowshed::cowtop
