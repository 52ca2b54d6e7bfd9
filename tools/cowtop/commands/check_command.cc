#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/rate_limit.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/arenas/published_layout.h>
#include <cowshed/tools/cowtop/check/budget.h>
#include <cowshed/tools/cowtop/check/verdict.h>
#include <cowshed/tools/cowtop/check/verdict_reports.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/measure/measure.h>
#include <cowshed/tools/cowtop/measure/measure_options.h>
#include <cowshed/tools/cowtop/recording/measurement_file.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kCheckDescription =
    "Measures a command, or a running process tree, and fails where it copies more, or has more "
    "new memory, than its budget.";

constexpr const char* kCheckUsage =
    "cowtop check LIMITS [OPTIONS] -- COMMAND [ARGS...]\n"
    "       cowtop check LIMITS [OPTIONS] -p PID | --cgroup PATH | --comm REGEX";

constexpr const char* kCheckFooter = R"(Examples:
  cowtop check --max-copied 64MiB --max-ratio 5% -- ./server --selftest
                                     each process below the root, by itself
  cowtop check --tree --max-copied 1GiB -- ./server --selftest
                                     all together, the root among them
  cowtop check --object index=0 -- ./server --selftest
                                     no process may copy a page of that object
  cowtop check --baseline before.cowtop --max-growth 10% -- ./server --selftest
                                     all together against a recording
  cowtop check --budget budget.ini --junit check.xml -- ./server --selftest
                                     limits kept in a file, the verdict for CI

Sizes are whole bytes, or a number with KiB, MiB, GiB or TiB.  A budget file has options of this
command without their dashes, one a line; an option on the command line counts instead:

  max-copied = 64MiB
  max-ratio = 5%
  object = ["index=0", "names=128KiB"]
  baseline = before.cowtop
  max-growth = 10%

New memory (--max-new) is what a process has beside its copies and what it got at its fork.
Own memory (--max-own) is what no other process maps, for the root and for each program that a
child runs.  Memory that is alike (--max-alike) is what one copy for all of them would save.
The ratio (--max-ratio) is copied memory to memory shared at the fork.  Copies after an exec do not
count.  A process that shared less than 1 MiB has no ratio.
A limit that no process could exceed is not within budget: if all children only ran programs, no
memory is shared that they could copy.
An unknown figure is reported as unknown, never as 0.  An object that no process was seen to publish
fails its limit: its name is wrong, or its process ended before cowtop examined it.

Exit status: the command's own if it failed; else 99 if a limit is exceeded; 125 if a limit could
not be judged, for example because no child was seen; else 0.  125 is also cowtop's own error or bad
usage; 126, 127 and 128+N are as cowtop's.)";

struct CheckOptions {
  MeasureOptions measure;
  Budget budget;
  std::optional<Baseline> baseline;
  bool warn = false;
  bool json = false;
  bool github = false;
  std::string output;
  std::string junit;
  std::vector<std::string> read;  // the files that are its input
};

// Reads no further than any file of limits, because a device has no end.
class LimitsFile : public CLI::ConfigTOML {
 public:
  explicit LimitsFile(const CLI::App& app) : app_(&app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& file) const override {
    constexpr std::size_t kMost = 1 << 20;
    std::string text(kMost + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
    if (text.size() > kMost)
      throw CLI::FileError("the file of limits is larger than 1 MiB", CLI::ExitCodes::FileError);
    text_ = text;
    std::istringstream stream(text);
    std::vector<CLI::ConfigItem> limits = CLI::ConfigTOML::from_config(stream);
    for (CLI::ConfigItem& item : limits) {
      const bool is_limit = item.parents.empty() && app_->get_option_no_throw("--" + item.name);
      const std::string name = item.parents.empty() ? item.name : "[" + item.parents[0] + "]";
      join_units(item.inputs);
      if (is_limit && (item.inputs.size() <= 1 || item.name == "object")) continue;
      throw CLI::ParseError(fmt::format("{}'{}' {}", place_of(name), name,
                                        is_limit ? "takes one value" : "is no limit"),
                            CLI::ExitCodes::ConfigError);
    }
    return limits;
  }

  // "FILE:LINE: " of a limit in the file; "" if it has none.
  std::string place_of(const std::string& name) const {
    std::istringstream lines(text_);
    std::size_t number = 1;
    for (std::string line; std::getline(lines, line); ++number) {
      const auto begin = line.find_first_not_of(" \t");
      if (begin == std::string::npos || line.compare(begin, name.size(), name) != 0) continue;
      if (std::min(line.find_first_of(" \t=", begin), line.size()) != begin + name.size()) continue;
      return fmt::format("{}:{}: ", app_->get_config_ptr()->as<std::string>(), number);
    }
    return "";
  }

 private:
  // CLI11 takes "20 MiB" for two values.
  static void join_units(std::vector<std::string>& values) {
    for (std::size_t i = 1; i < values.size();) {
      if (values[i] == "%" || is_unit(values[i])) {
        values[i - 1] += values[i];
        values.erase(values.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        ++i;
      }
    }
  }

  const CLI::App* app_;
  mutable std::string text_;
};

// The limits of a command line.  `app` must outlive it.
class BudgetArguments {
 public:
  // `words`: of the command line, which counts before the file.
  BudgetArguments(CommandLine& line, const std::vector<std::string>& words) {
    words_.assign(words.begin(), std::ranges::find(words, "--"));
    CLI::App& app = line.app();
    app.add_option("--max-copied", copied_, "What each may copy")->type_name("SIZE");
    app.add_option("--max-ratio", ratio_, "The same as a part of what it shared at its fork")
        ->type_name("PERCENT");
    app.add_option("--max-new", new_, "What each below the root may have that is new")
        ->type_name("SIZE");
    app.add_option("--max-own", own_, "What each, the root among them, may have of its own")
        ->type_name("SIZE");
    app.add_option("--max-alike", alike_,
                   "What all together may hold that another of them holds byte for byte; implies"
                   " --alike")
        ->type_name("SIZE");
    app.add_option("--object", objects_,
                   "What each process, the root among them, may copy of a published object; may be"
                   " given again")
        ->type_name("NAME=SIZE")
        ->allow_extra_args(false);
    line.add_file("--baseline", baseline_,
                  "An earlier measurement: of cowtop record, or of cowtop --json");
    app.add_option("--max-growth", growth_, "What all together may copy more than then")
        ->type_name("PERCENT");
    app.add_flag("--per-child", per_child_, "Each process below the root is held to it (default)");
    app.add_flag("--tree", tree_, "All together are held to it");
    limits_file_ = std::make_shared<LimitsFile>(app);
    app.config_formatter(limits_file_);
    file_ = app.set_config("--budget", "", "Read limits from a file, see below")
                ->type_name("FILE")
                ->check(wrong_file_name);
    app.allow_config_extras(CLI::config_extras_mode::error);
  }

  // After `app` has parsed.
  std::string file() const { return file_->count() == 0 ? "" : file_->as<std::string>(); }
  // The same.  Errors: invalid_argument.
  Expected<Budget> budget() const {
    Budget given;
    const bool are_both = tree_ && per_child_;
    if (are_both && is_word("--tree") == is_word("--per-child"))
      return wrong("--tree, --per-child: give one of the two");
    if (are_both ? is_word("--tree") : tree_) given.per = Budget::Per::tree;
    given.baseline = baseline_;
    std::optional<Error> error;
    take(copied_, "--max-copied", parse_size, given.max_copied_bytes, error);
    take(ratio_, "--max-ratio", parse_percentage, given.max_ratio, error);
    take(new_, "--max-new", parse_size, given.max_new_bytes, error);
    take(own_, "--max-own", parse_size, given.max_own_bytes, error);
    take(alike_, "--max-alike", parse_size, given.max_alike_bytes, error);
    take(growth_, "--max-growth", parse_percentage, given.max_growth, error);
    for (const std::string& text : objects_) {
      std::optional<Budget::Object> object;
      take(text, "--object", parse_object, object, error);
      if (object) given.objects.push_back(std::move(*object));
    }
    if (error) return tl::make_unexpected(std::move(*error));
    if (std::string why = what_is_wrong_with(given); !why.empty()) return wrong(std::move(why));
    return given;
  }

 private:
  // Whether the option was given on the command line.
  bool is_word(const std::string& option) const {
    return std::ranges::any_of(words_, [&](const std::string& word) {
      return word == option || word.starts_with(option + "=");
    });
  }
  template <class T>
  void take(const std::optional<std::string>& text, const std::string& option,
            Expected<T> (*parse)(std::string_view), std::optional<T>& value,
            std::optional<Error>& error) const {
    if (!text) return;
    auto parsed = parse(*text);
    if (parsed) {
      value = std::move(*parsed);
    } else {
      const std::string place = is_word(option) ? "" : limits_file_->place_of(option.substr(2));
      parsed.error().message = (place.empty() ? option + ": " : place) + parsed.error().message;
      error = std::move(parsed.error());
    }
  }

  std::optional<std::string> copied_;
  std::optional<std::string> ratio_;
  std::optional<std::string> new_;
  std::optional<std::string> own_;
  std::optional<std::string> alike_;
  std::optional<std::string> growth_;
  std::vector<std::string> objects_;
  std::string baseline_;
  CLI::Option* file_;
  bool per_child_ = false;
  bool tree_ = false;
  std::vector<std::string> words_;
  std::shared_ptr<LimitsFile> limits_file_;
};

// Collects the names of published objects, until it has all that are limited, in at most a
// twentieth of the time.
class PublishedNames : public Observer {
 public:
  explicit PublishedNames(const Budget& budget) {
    for (const Budget::Object& object : budget.objects) missing_.insert(object.name);
  }

  void sampled(const cow::Backend& backend) override {
    const std::uint64_t begin = monotonic_ns();
    if (missing_.empty() || !pace_.is_due(begin)) return;
    for (const cow::ProcessCopies& process : backend.measurement(cow::CodeOf::none()).processes)
      if (process.alive && !process.shares_memory) look_at(process.pid);
    const std::uint64_t end = monotonic_ns();
    pace_.ran(end, end - begin);
  }
  const std::set<std::string>& names() const { return names_; }

 private:
  void look_at(pid_t pid) {
    const auto mappings = proc_.maps(pid);
    if (!mappings) return;
    const auto layout = cow::read_published_layout(proc_, pid, *mappings);
    if (!layout) return;
    constexpr std::size_t kMost = 1000;  // a process may publish ever new ones
    for (const cow::PublishedObject& object : layout->objects)
      if (missing_.erase(object.name) != 0 || names_.size() < kMost) names_.insert(object.name);
  }

  cow::ProcFiles proc_;
  std::set<std::string> names_;
  std::set<std::string> missing_;
  internal::DutyCycle pace_{20};
};

void print(const Verdict& verdict) {
  for (const std::string& note : verdict.notes) complain(note);
  for (const std::string& line : over_lines(verdict)) complain("over budget: " + line);
  for (const std::string& why : verdict.not_measured) complain("not measured: " + why);
  if (!verdict.is_over() && verdict.not_measured.empty())
    complain("within budget: " + within_line(verdict));
}

// Where reports of a verdict go; opened before the command runs.
struct Reports {
  std::optional<OutputFile> json;
  std::optional<OutputFile> junit;
};

Expected<Reports> open_reports(const CheckOptions& options) {
  Reports reports;
  std::vector<std::string> others = options.read;
  if (options.json) {
    TRY(reports.json, OutputFile::open(options.output, others));
    others.push_back(options.output.empty() ? "/dev/stdout" : options.output);
  }
  if (!options.junit.empty()) {
    TRY(reports.junit, OutputFile::open(options.junit, others));
  }
  return reports;
}

// Whether all of them could be written.
bool write(const Verdict& verdict, const CheckOptions& options, Severity severity,
           Reports& reports) {
  bool good = true;
  const auto check = [&](const Expected<void>& written) {
    if (!written) complain(written.error().message);
    good = good && written;
  };
  if (reports.json) check(reports.json->write_report(verdict_json(verdict)));
  if (reports.junit) check(reports.junit->write_report(verdict_junit(verdict, severity)));
  if (options.github) std::cout << verdict_annotations(verdict, severity) << std::flush;
  return good;
}

Expected<int> check(const CheckOptions& options) {
  TRY(auto reports, open_reports(options));
  PublishedNames published(options.budget);
  const Measured measured = measure(options.measure, &published);
  Verdict verdict;
  if (measured.measurement) {
    verdict =
        verdict_on(*measured.measurement, options.budget, options.baseline, published.names());
    print(verdict);
  } else {
    verdict.not_measured.emplace_back("all: cowtop could not measure it");
  }
  // That cowtop failed is more than was asked to be warned of.
  const auto severity = options.warn && measured.measurement ? Severity::warning : Severity::error;
  const bool is_written = write(verdict, options, severity, reports);
  if (measured.exit_status != 0) return measured.exit_status;
  if (!is_written) return kOwnError;
  if (options.warn) return 0;
  if (verdict.is_over()) return kOverBudget;
  return verdict.not_measured.empty() ? 0 : kOwnError;
}

bool is_github() {
  const char* actions = std::getenv("GITHUB_ACTIONS");
  return actions != nullptr && std::string_view(actions) == "true";
}

// Errors: those of read_measurement(); bad_recording where it does not know what anybody copied.
Expected<Baseline> read_baseline(const std::string& path) {
  TRY(const auto earlier, read_measurement(path));
  Baseline baseline;
  baseline.backend = earlier.measurement.backend;
  if (!earlier.note.empty()) baseline.notes.push_back(earlier.note);
  std::size_t not_known = 0;
  for (const cow::ForkCopies& copies : cow::fork_copies(earlier.measurement)) {
    const auto bytes = copies.copied_bytes();
    if (!bytes) ++not_known;
    baseline.copied_bytes += bytes.value_or(0);
  }
  if (not_known == earlier.measurement.processes.size())
    return make_error(ErrorCode::bad_recording, path + ": does not know what any process copied");
  if (not_known > 0) {
    baseline.notes.push_back(fmt::format("{} does not know what {} of its {} processes copied",
                                         path, not_known, earlier.measurement.processes.size()));
  }
  return baseline;
}

}  // namespace

Expected<int> check_command(std::vector<std::string> words) {
  CommandLine line({"cowtop check", kCheckDescription, kCheckUsage, kCheckFooter});
  CheckOptions options;
  const BudgetArguments limits(line, words);
  line.app().add_flag(
      "--warn", options.warn,
      "Say what is over and exit with the command's own status; the tests of --junit pass");
  line.add_file("--junit", options.junit, "Also JUnit XML: a test for each limit and process");
  line.app().add_flag("--json", options.json,
                      "Also one JSON object (schema cowshed.check/1) on standard output");
  line.add_file("-o,--output", options.output, "With --json: to FILE, not to standard output");
  line.app().add_flag(
      "--github", options.github,
      "Also annotations for GitHub, on standard output; always where the environment"
      " has GITHUB_ACTIONS=true, unless --json takes standard output");
  const MeasureArguments arguments(line.app(), MeasureArguments::Otherwise::is_wrong);
  TRY(const auto status, line.parse_with_command(std::move(words)));
  if (status) return *status;
  if (!options.output.empty() && !options.json) return line.wrong("-o: only with --json");
  const bool takes_output = options.json && options.output.empty();
  if (options.github && takes_output) return line.wrong("--github: with --json, give -o FILE");
  options.github = options.github || (is_github() && !takes_output);
  TRY(options.budget, line.checked(limits.budget()));
  TRY(options.measure, line.checked(arguments.options(line.command())));
  options.measure.keeps_each_process = true;  // each is held to the budget
  if (options.budget.max_alike_bytes) options.measure.compares_all = true;
  if (!options.budget.baseline.empty()) {
    TRY(options.baseline, read_baseline(options.budget.baseline));
  }
  options.read = {limits.file(), options.budget.baseline};
  return check(options);
}

}  // namespace cowshed::cowtop
