#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <poll.h>
#include <set>
#include <utility>
#include <vector>

#include <cowshed/base/collapse.h>
#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/check/budget.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/collapse_report.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/measure/selection_options.h>
#include <cowshed/tools/cowtop/measure/signals.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

using std::chrono::seconds;

constexpr const char* kCollapseDescription =
    "Puts private memory of a running process into 2 MiB pages: its forks are quick.\n"
    "This changes the process: where its bytes lie, and not the bytes.";

constexpr const char* kCollapseUsage =
    "cowtop collapse [--every TIME] -p PID[,PID...] | --cgroup PATH | --comm REGEX";

constexpr const char* kCollapseFooter = R"(Examples:
  sudo cowtop collapse -p $(pidof -s redis-server)
                                     once, until something is written during a save
  sudo cowtop collapse --every 60s --comm '^redis-server$'
                                     again each minute, until Ctrl-C
  sudo cowtop collapse --json -p PID | jq '.processes[].estimated_fork_ms_after'

fork() copies 512 entries for 2 MiB of small pages, and one for a 2 MiB page.  A process that writes
while a child lives splits the 2 MiB pages that it writes to: --every collapses them again.  While a
child still shares them, cowtop looks ten times as often.

The holes of a range are filled, first where there are few: --most-added bounds them.  cowtop leaves
memory that is shared with a child, locked, swapped out, watched by userfaultfd, or that the process
keeps from huge pages or from its children.  It takes half a CPU at most: after each 2 MiB it pauses.
It stops 32 MiB before a memory limit of the process's cgroup is met.  You can end it at any time.

It needs root, or CAP_SYS_NICE and the right to trace the process, and Linux 6.1 or later.

Exit status: 0, with --every after a signal or the end of the processes; without it, 128+N if signal
N ended it; 125 if no process could be collapsed, another error, or bad usage.)";

constexpr seconds kLongest{1'000'000'000};

Expected<seconds> parse_time(std::string_view text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  const std::string_view unit(parsed.ptr, static_cast<std::size_t>(end - parsed.ptr));
  const std::uint64_t of = unit.empty() || unit == "s" ? 1
                           : unit == "m"               ? 60
                           : unit == "h"               ? 3600
                                                       : 0;
  const auto most = static_cast<std::uint64_t>(kLongest.count());
  if (parsed.ec != std::errc() || of == 0 || number == 0 || number > most / of)
    return wrong("'" + std::string(text) + "' is not a time as 60s, 5m or 1h");
  return seconds(number * of);
}

struct CollapseCommandOptions {
  CollapseOptions collapse{.most_added = 0.02, .cpu_share = 0.5};
  std::optional<seconds> every;
  bool json = false;
};

class Collapses {
 public:
  Collapses(const CollapseCommandOptions& options, SelectedProcesses selected, EndSignals signals,
            OutputFile file)
      : options_(options),
        selected_(std::move(selected)),
        signals_(std::move(signals)),
        file_(std::move(file)) {}

  Expected<int> run() {
    for (bool is_first = true;; is_first = false) {
      TRY(const bool is_any, round(is_first));
      if (!is_any && !(options_.every && selected_.grows())) break;
      if (!options_.every || signal_) break;
      wait();
      if (signal_ || (collapsers_.empty() && !selected_.grows())) break;
    }
    return signal_ && !options_.every ? kSignalBase + *signal_ : 0;
  }

 private:
  // Returns whether there was a process.
  Expected<bool> round(bool is_first) {
    std::vector<Error> refused;
    std::vector<CollapsedProcess> processes;
    is_shared_ = false;
    for (const pid_t pid : selected_.processes(refused)) {
      auto collapsed = collapse(pid);
      if (!collapsed) refused.push_back(collapsed.error());
      else processes.push_back({pid, name_of(pid), *collapsed});
      if (signal_) break;
    }
    if (is_first && processes.empty() && !refused.empty() && !(options_.every && selected_.grows()))
      return tl::make_unexpected(refused.front());
    for (const Error& each : refused) {
      // Of those that are not named, some end at any time.
      const bool is_news =
          is_first || !selected_.grows() || each.code != ErrorCode::no_such_process;
      if (is_news && said_.insert(each.message).second) complain("not collapsed: " + each.message);
    }
    std::string text = options_.json ? collapse_json(processes, refused) : "";
    for (const CollapsedProcess& each : processes)
      if (!options_.json && (is_first || has_grown(each))) text += collapse_text(each);
    TRY_VOID(file_.append(options_.json ? text : printable_lines(text)));
    return !processes.empty();
  }

  static bool has_grown(const CollapsedProcess& process) {
    return process.collapsed.huge_bytes_after > process.collapsed.huge_bytes_before;
  }

  Expected<Collapsed> collapse(pid_t pid) {
    auto known = collapsers_.find(pid);
    if (known == collapsers_.end()) {
      TRY(auto collapser, internal::Collapser::open(pid, options_.collapse));
      known = collapsers_.emplace(pid, std::move(collapser)).first;
    }
    constexpr seconds kFirst{1};
    constexpr seconds kNext{5};
    auto due = std::chrono::steady_clock::now() + kFirst;
    auto collapsed = known->second.collapse([&](std::uint64_t done, std::uint64_t of) {
      if (const auto signal = signals_.next()) signal_ = static_cast<int>(signal->ssi_signo);
      if (std::chrono::steady_clock::now() >= due) {
        complain(breakable(fmt::format("PID {}: {} of {}", pid, mib(done), mib(of))));
        due += kNext;
      }
      return !signal_;
    });
    if (!collapsed) {
      collapsers_.erase(known);
      return collapsed;
    }
    is_shared_ = is_shared_ || is_part(collapsed->left_as(SmallPages::shared),
                                       collapsed->private_bytes, kLittleOfAll);
    return collapsed;
  }

  // Until the next round is due, or a signal arrives, or a process has ended.
  void wait() {
    constexpr int kMsPerSecond = 1000;
    constexpr int kMoreOften = 10;
    std::vector<pollfd> files = {{signals_.fd(), POLLIN, 0}};
    for (const auto& [pid, collapser] : collapsers_)
      files.push_back({collapser.pidfd(), POLLIN, 0});
    const auto ms = options_.every->count() * kMsPerSecond / (is_shared_ ? kMoreOften : 1);
    ::poll(files.data(), files.size(), static_cast<int>(std::min<std::int64_t>(ms, INT_MAX)));
    if (const auto signal = signals_.next()) signal_ = static_cast<int>(signal->ssi_signo);
    std::size_t i = 1;
    std::erase_if(collapsers_, [&](const auto&) { return files[i++].revents != 0; });
  }

  std::string name_of(pid_t pid) const {
    const auto stat = proc_.stat(pid);
    return stat ? stat->comm : "process";
  }

  const CollapseCommandOptions& options_;
  SelectedProcesses selected_;
  EndSignals signals_;
  OutputFile file_;
  cow::ProcFiles proc_;
  std::map<pid_t, internal::Collapser> collapsers_;
  std::set<std::string> said_;
  bool is_shared_ = false;
  std::optional<int> signal_;
};

// The options that cowtop has, for processes and not their descendants.
void say_what_selects(CLI::App& app) {
  app.remove_option(app.get_option("--backend"));
  app.get_option("--pid")->description(
      "Collapse the memory of these processes; several separated by commas, or given again");
  app.get_option("--cgroup")
      ->description(
          "Of all processes of this cgroup (v2) and of those below it: a path, or the ID of"
          " a container or pod; with --every, also of those that come later");
  app.get_option("--comm")->description(
      "Of all processes with such a name (/proc/PID/comm), a regular expression; with --every, also"
      " of those that come later");
}

}  // namespace

Expected<int> collapse_command(std::vector<std::string> words) {
  CommandLine line({"cowtop collapse", kCollapseDescription, kCollapseUsage, kCollapseFooter});
  CollapseCommandOptions options;
  std::string most_added;
  std::string every;
  const SelectionArguments arguments(line.app());
  say_what_selects(line.app());
  line.app()
      .add_option("--most-added", most_added,
                  "Fill holes of at most this part of the private memory (2%)")
      ->type_name("PERCENT%");
  line.app()
      .add_option("--every", every, "Go on until Ctrl-C, and collapse again so often: 60s, 5m, 1h")
      ->type_name("TIME");
  line.app().add_flag("--json", options.json,
                      "One JSON object a line, for each look (schema cowshed.collapse/1)");
  TRY(const auto status, line.parse(std::move(words)));
  if (status) return *status;
  if (!most_added.empty()) {
    TRY(options.collapse.most_added, line.checked(parse_percentage(most_added)));
  }
  if (!every.empty()) {
    TRY(options.every, line.checked(parse_time(every)));
  }
  TRY(auto selection, line.checked(arguments.selection()));
  if (!selection) return line.wrong("whose memory? give -p PID, --cgroup or --comm");
  TRY(auto selected, SelectedProcesses::open(std::move(*selection)));
  TRY(auto file, OutputFile::open(""));
  TRY(auto signals, EndSignals::open());
  return Collapses(options, std::move(selected), std::move(signals), std::move(file)).run();
}

}  // namespace cowshed::cowtop
