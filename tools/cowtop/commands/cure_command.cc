#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <iostream>
#include <sstream>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/analysis/remedies.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/cure/environment.h>
#include <cowshed/tools/cowtop/cure/left_behind.h>
#include <cowshed/tools/cowtop/cure/plan.h>
#include <cowshed/tools/cowtop/cure/treatments.h>
#include <cowshed/tools/cowtop/cure/trial.h>
#include <cowshed/tools/cowtop/doctor/doctor.h>
#include <cowshed/tools/cowtop/io/output_file.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kCureDescription =
    "Runs a command as it is, then once with each remedy that its copies suggest and that needs\n"
    "no edit, and says which one helps.";

constexpr const char* kCureUsage = "cowtop cure [OPTIONS] -- COMMAND [ARGS...]";

constexpr const char* kCureFooter = R"(Examples:
  cowtop cure -- python3 selftest.py
  cowtop cure --runs 5 -- ./selftest.sh
                                     each five times, in turns
  cowtop cure --json -o cure.json -- CMD

The command must end by itself, such as a self-test.  It runs several times, and each run has all
its effects; --dry-run shows the plan.  Its standard input is empty.  What it writes to standard
output and error is compared and not shown: what varies among up to three runs of the command as it
is does not count, and other numbers are called so.

The trial ends after the first run if that left a process, or changed files of the working folder
other than caches, logs and PID files.  The environment stays: a remedy adds to a list that you set,
and is left out where you set the same.

Remedies, each where the evidence supports it: cowshed run (Python), gc.freeze() by COWSHED=gc,
Process.warmup or GC.compact (Ruby), OCAMLRUNPARAM, zend.enable_gc=0 (PHP), LD_BIND_NOW,
MALLOC_ARENA_MAX, GLIBC_TUNABLES, PYTHONMALLOC; huge pages, or none; cowshed run --settle.

One helps if it takes 5 % of all memory at the peak (PSS), or a fifth of the copies, and 1 MiB; or
half of the longest fork (FORK), from 10 ms on; with the same lines of output, but for numbers, and
the same exit status.

Exit status: 0, whatever helps; that of the command if it fails as it is; 125 is cowtop's own error,
bad usage, or a trial that ended for what the first run left; 126, 127 and 128+N are as cowtop's.)";

// A folder that other users may read, for -u.
class Folder {
 public:
  Folder() {
    std::string name = "/tmp/cowtop-cure.XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) return;
    name_ = name;
    constexpr unsigned kForAll = 0755;
    std::filesystem::permissions(name_, std::filesystem::perms{kForAll});
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code error;
    if (!name_.empty()) std::filesystem::remove_all(name_, error);
  }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
};

// The interpreter of a script, or the program itself, by its name.
std::string interpreter_of(const std::string& program) {
  std::string path = program;
  if (program.find('/') == std::string::npos) {
    std::istringstream folders(std::getenv("PATH") == nullptr ? "" : std::getenv("PATH"));
    for (std::string folder; std::getline(folders, folder, ':');) {
      path = fmt::format("{}/{}", folder, program);
      if (::access(path.c_str(), X_OK) == 0) break;
    }
  }
  std::ifstream file(path);
  std::string line;
  if (file.get() == '#' && file.get() == '!' && std::getline(file, line)) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word.ends_with("/env")) words >> word;
    return word;
  }
  return path;
}

// How `cowshed run` is started; empty: it is not installed.
Expected<std::vector<std::string>> cowshed_command(const MeasureOptions& options) {
  const std::string& program = options.command.front();
  const std::string interpreter = interpreter_of(program);
  // Beside cowtop, as in a virtual environment that is not active.
  std::error_code unknown;
  const auto beside = std::filesystem::read_symlink("/proc/self/exe", unknown).parent_path();
  std::vector<std::vector<std::string>> ways = {
      {beside / "cowshed"}, {"cowshed"}, {"python3", "-m", "cowshed"}};
  if (interpreter.find("python") != std::string::npos) {
    const bool is_found_by_name = interpreter.ends_with("/" + program);
    ways.insert(ways.begin(), {is_found_by_name ? program : interpreter, "-m", "cowshed"});
  }
  for (std::vector<std::string>& way : ways) {
    std::vector<std::string> words = way;
    words.emplace_back("--version");
    const FileDescriptor nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const int fd = nothing.get();
    TRY(auto command, cow::Command::fork(words, options.user, {fd, fd, fd}));
    if (!command.release()) continue;
    TRY(const int status, command.wait());
    if (status == 0) return way;
  }
  return std::vector<std::string>();
}

// By the name of the interpreter that runs it.
cow::Language language_of_command(const std::string& program) {
  return cow::language_of_file(interpreter_of(program));
}

struct CureOptions {
  MeasureOptions measure;
  unsigned runs = 1;
  bool json = false;
  bool dry_run = false;
  bool keep_going = false;
};

class Cures {
 public:
  explicit Cures(const CureOptions& options) : options_(options) {
    treatments_.command = options.measure.command;
  }

  std::string plan() const {
    const std::vector<std::string>& command = options_.measure.command;
    // The command may start programs in other languages.
    return plan_text(command, cures_for({}, cow::Language::native), options_.runs);
  }

  // Returns an exit status.  What is known so far is in treatments().
  Expected<int> run() {
    Treatment& as_it_is = treatments_.as_it_is;
    const FolderState folder(".");
    TRY(const bool is_begun, try_once(as_it_is));
    if (!is_begun) return status_;
    if (const Outcome& outcome = as_it_is.trials.front().outcome; outcome.status != 0)
      return failed(outcome);
    note_left_behind(folder);
    if (treatments_.is_stopped) return kOwnError;
    TRY_VOID(choose());
    if (is_asked_to_end()) return ended();
    planned_ = options_.runs * (1 + static_cast<unsigned>(treatments_.cured.size()));
    for (unsigned i = 0; i < options_.runs; ++i) {
      for (Treatment& each : treatments_.cured) {
        TRY(const bool goes_on, try_once(each));
        if (!goes_on) return ended();
      }
      if (i + 1 == options_.runs) break;
      TRY(const bool goes_on, try_once(as_it_is));
      if (!goes_on) return ended();
    }
    // How much the command varies by itself is asked only where something differs.
    while (compare() && as_it_is.trials.size() < kMostToCompare) {
      TRY(const bool goes_on, try_once(as_it_is));
      if (!goes_on) return ended();
      for (Treatment& each : treatments_.cured) {
        if (each.likeness != Likeness::reordered || each.trials.size() >= kMostToCompare) continue;
        TRY(const bool still_goes_on, try_once(each));
        if (!still_goes_on) return ended();
      }
    }
    // What a cache saves that the first run filled, no remedy did.
    if (as_it_is.trials.size() == 1 && best_of(treatments_) != nullptr) {
      TRY(const bool goes_on, try_once(as_it_is));
      if (!goes_on) return ended();
    }
    return 0;
  }
  const Treatments& treatments() const { return treatments_; }

 private:
  // False: the run was not measured, or ended by a signal to cowtop.
  Expected<bool> try_once(Treatment& treatment) {
    if (is_asked_to_end()) return false;
    MeasureOptions options = options_.measure;
    std::vector<std::pair<std::string, std::string>> environment;
    if (treatment.cure) {
      environment = treatment.cure->environment;
      const std::vector<std::string>& prefix = treatment.cure->prefix;
      options.command.insert(options.command.begin(), prefix.begin(), prefix.end());
      if (!prefix.empty()) environment.emplace_back("COWSHED_LOG", empty_log());
    }
    announce(treatment);
    const auto begin = std::chrono::steady_clock::now();
    TRY(auto trial, run_trial(options, environment, signals_));
    if (is_asked_to_end()) return false;
    if (!trial.measurement) {
      status_ = trial.outcome.status == 0 ? kOwnError : trial.outcome.status;
      return false;
    }
    took_ += std::chrono::steady_clock::now() - begin;
    treatment.trials.push_back(std::move(trial));
    if (treatment.cure && treatment.cure->freezes() && treatment.remark.empty())
      treatment.remark = why_not_frozen();
    return true;
  }

  bool is_asked_to_end() {
    const auto signal = PassedSignals::asked_by();
    if (signal) status_ = kSignalBase + *signal;
    return signal.has_value();
  }

  // Says which run begins, what it sets, and how long the planned ones take by those before.
  void announce(const Treatment& treatment) {
    std::string what = "as it is";
    if (treatment.cure) {
      what = shell_line(*treatment.cure, {});
      if (what != treatment.cure->name) what = treatment.cure->name + ": " + what;
      if (!treatment.cure->prefix.empty()) what += ", COWSHED_LOG";
    }
    std::string which;
    if (run_ > 0 && run_ < planned_)
      which = fmt::format(" of {}, some {:.0f} s left", planned_,
                          std::ceil(took_.count() / run_ * (planned_ - run_)));
    else if (run_ > 0) which = ", to compare";
    complain(fmt::format("run {}{}, {}", ++run_, which, what));
  }

  void note_left_behind(const FolderState& folder) {
    std::vector<std::string>& left = treatments_.left_behind;
    left = processes_left(*treatments_.as_it_is.trials.front().measurement);
    for (std::string& each : folder.changed()) left.push_back(std::move(each));
    constexpr std::size_t kMost = 5;
    if (left.size() > kMost) {
      const std::size_t more = left.size() - kMost;
      left.resize(kMost);
      left.push_back(fmt::format("{} more", more));
    }
    treatments_.is_stopped = !left.empty() && !options_.keep_going;
    if (treatments_.is_stopped)
      complain(fmt::format("the first run left {}: no remedy is tried without --keep-going",
                           fmt::join(left, ", ")));
  }

  // Of cowshed run; the command's user may write to it.
  std::string log() const { return folder_.name() + "/cowshed.log"; }
  std::string empty_log() const {
    std::ofstream(log()).close();
    constexpr unsigned kForAll = 0666;
    std::error_code error;
    std::filesystem::permissions(log(), std::filesystem::perms{kForAll}, error);
    return log();
  }
  // Empty: it was.
  std::string why_not_frozen() const {
    std::ifstream lines(log());
    std::string line;
    bool is_frozen = false;
    constexpr std::string_view kWhyNot = "stays as it is: ";
    while (std::getline(lines, line)) {
      if (const auto at = line.find(kWhyNot); at != line.npos)
        return line.substr(at + kWhyNot.size());
      is_frozen = true;
    }
    return is_frozen ? "" : "it froze nothing: no Python of the command forked with so much";
  }

  int failed(const Outcome& outcome) const {
    constexpr std::size_t kMost = 2000;
    const std::string& text = outcome.error.empty() ? outcome.output : outcome.error;
    std::fwrite(text.data() + (text.size() - std::min(text.size(), kMost)), 1,
                std::min(text.size(), kMost), stderr);
    complain(
        fmt::format("the command ends with status {} as it is; a remedy is judged by one that "
                    "succeeds",
                    outcome.status));
    return outcome.status;
  }

  // What was not tried in full says nothing.
  int ended() {
    for (const Treatment& each : treatments_.cured)
      if (each.trials.empty()) treatments_.not_tried.push_back({each.cure->name, kEnded});
    std::erase_if(treatments_.cured, [](const Treatment& each) { return each.trials.empty(); });
    compare();
    return status_;
  }

  Expected<void> choose() {
    if (folder_.name().empty())
      return make_error(ErrorCode::system_call, "no folder can be made in /tmp");
    const Trial& first = treatments_.as_it_is.trials.front();
    const Summary summary = summarize(*first.measurement);
    for (Cure& cure :
         cures_for({&*first.measurement, &summary, first.threads},
                   language_of_command(options_.measure.command.front()), folder_.name())) {
      std::string why_not = keep_environment(cure);
      if (std::ranges::find(cure.prefix, "--merge") != cure.prefix.end() &&
          !ksm_runs().value_or(false))
        why_not = "KSM does not run: cowtop doctor says how to start it";
      if (!cure.prefix.empty() && why_not.empty()) {
        if (cowshed_.empty()) {
          TRY(cowshed_, cowshed_command(options_.measure));
        }
        if (cowshed_.empty())
          why_not = PassedSignals::asked_by()
                        ? kEnded
                        : "the Python package cowshed is not installed for this command";
        cure.prefix.erase(cure.prefix.begin());
        cure.prefix.insert(cure.prefix.begin(), cowshed_.begin(), cowshed_.end());
      }
      if (!why_not.empty()) {
        treatments_.not_tried.push_back({cure.name, why_not});
        continue;
      }
      for (const auto& [name, text] : cure.files) {
        std::ofstream file(folder_.name() + "/" + name);
        file << text;
        file.close();
        if (!file) return system_error("cannot write in the temporary folder", errno);
      }
      treatments_.cured.push_back({std::move(cure)});
    }
    return {};
  }

  // Whether a remedy's output differs from that of the command as it is.
  bool compare() {
    std::vector<Outcome> usual;
    for (const Trial& each : treatments_.as_it_is.trials) usual.push_back(each.outcome);
    bool all_same = true;
    for (Treatment& treatment : treatments_.cured) {
      treatment.likeness = Likeness::same;
      for (const Trial& each : treatment.trials)
        treatment.likeness = std::max(treatment.likeness, likeness(usual, each.outcome));
      // Of several processes the order is chance: with the remedy, it then has no order either.
      const Outcome& first = treatment.trials.front().outcome;
      const bool has_order = std::ranges::all_of(treatment.trials, [&](const Trial& each) {
        return each.outcome.output == first.output && each.outcome.error == first.error;
      });
      if (treatment.likeness == Likeness::reordered && !has_order)
        treatment.likeness = Likeness::same;
      treatment.difference.reset();
      for (const Trial& each : treatment.trials)
        if (treatment.likeness != Likeness::same && !treatment.difference)
          treatment.difference = first_difference(usual, each.outcome);
      all_same = all_same && treatment.likeness == Likeness::same;
    }
    return !all_same;
  }

  static constexpr const char* kEnded = "the trial ended before";

  const CureOptions& options_;
  PassedSignals signals_;  // until the folder is removed
  Treatments treatments_;
  Folder folder_;
  std::vector<std::string> cowshed_;
  unsigned run_ = 0;
  unsigned planned_ = 1;
  std::chrono::duration<double> took_{};
  int status_ = 0;
};

}  // namespace

Expected<int> cure_command(std::vector<std::string> words) {
  CommandLine line({"cowtop cure", kCureDescription, kCureUsage, kCureFooter});
  CureOptions options;
  std::string output;
  constexpr unsigned kMostRuns = 1000;
  line.app()
      .add_option("--runs", options.runs,
                  "Run each N times, in turns; figures are the middle between the least and the "
                  "most, ± half of what is between")
      ->type_name("N")
      ->check(CLI::Range(1U, kMostRuns).description(""));
  line.app().add_flag("--json", options.json, "One JSON object (schema cowshed.cure/1)");
  line.add_file("-o,--output", output, "Write the report to FILE, not to standard output");
  line.app().add_flag("--dry-run", options.dry_run, "Show what cure would do, and run nothing");
  line.app().add_flag("--keep-going", options.keep_going,
                      "Go on if the first run leaves processes or changed files");
  const MeasureArguments arguments(line.app(), MeasureArguments::Otherwise::is_wrong);
  for (const char* selects : {"--pid", "--cgroup", "--comm", "--duration"})
    line.app().get_option(selects)->group("");  // not in --help
  TRY(const auto status, line.parse_with_command(std::move(words)));
  if (status) return *status;
  TRY(options.measure, line.checked(arguments.options(line.command())));
  if (options.measure.selection)
    return line.wrong(options.measure.selection->text() + ": cure runs a command");
  TRY(auto file, OutputFile::open(output));
  Cures cures(options);
  if (options.dry_run) {
    TRY_VOID(file.write_report(cures.plan()));
    return 0;
  }
  std::cerr << cures.plan() << std::flush;
  TRY(const int result, cures.run());
  const Treatments& treatments = cures.treatments();
  if (treatments.as_it_is.trials.empty() || treatments.as_it_is.trials.front().outcome.status != 0)
    return result;
  TRY_VOID(file.write_report(options.json ? cure_json(treatments) : cure_table(treatments)));
  return result;
}

}  // namespace cowshed::cowtop
