#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/backend.h>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cowshed::cowtop {

enum class Diff : std::uint8_t { none, at_intervals, at_exit };

// What to measure, and how: the same for every subcommand that measures.
struct MeasureOptions {
  std::vector<std::string> command;
  std::optional<pid_t> attach_pid;  // one of the two
  cow::BackendChoice backend = cow::BackendChoice::automatic;
  SamplingOptions sampling;  // period 0: no code sites asked for
  Timing timing = Timing::off;
  Diff diff = Diff::none;
};

// The options of a command line that say so.  `app` must outlive it.
class MeasureArguments {
 public:
  explicit MeasureArguments(CLI::App& app);
  MeasureArguments(const MeasureArguments&) = delete;
  MeasureArguments& operator=(const MeasureArguments&) = delete;
  ~MeasureArguments() = default;

  // After `app` has parsed.  `command` is what came after the options.  Errors: invalid_argument.
  Expected<MeasureOptions> options(std::vector<std::string> command) const;

 private:
  pid_t pid_ = 0;
  std::string backend_ = "auto";
  bool sites_ = false;
  std::uint32_t period_ = 0;
  bool latency_ = false;
  bool diff_ = false;
  bool diff_at_exit_ = false;
  CLI::Option* attach_;
  CLI::Option* count_;
};

}  // namespace cowshed::cowtop
