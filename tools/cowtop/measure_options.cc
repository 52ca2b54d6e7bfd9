#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <utility>

#include <cowshed/tools/cowtop/measure_options.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint32_t kUsualPeriod = 64;
constexpr std::uint32_t kMostPeriod = 1'000'000'000;

std::string check_pid(const std::string& text) {
  pid_t value = 0;
  const char* end = text.data() + text.size();
  const auto parsed_number = std::from_chars(text.data(), end, value);
  const bool good = parsed_number.ec == std::errc() && parsed_number.ptr == end;
  return good && value > 0 ? std::string() : "'" + text + "' is not a process ID";
}

tl::unexpected<Error> wrong(std::string message) {
  return make_error(ErrorCode::invalid_argument, std::move(message));
}

}  // namespace

MeasureArguments::MeasureArguments(CLI::App& app, Otherwise otherwise) : otherwise_(otherwise) {
  by_pid_ = app.add_option("-p,--pid", pids_,
                           "Attach to these processes and their descendants; several separated by"
                           " commas, or given again")
                ->check(CLI::Validator(check_pid, ""))
                ->type_name("PID")
                ->delimiter(',')
                ->allow_extra_args(false);
  by_cgroup_ = app.add_option("--cgroup", cgroup_,
                              "Attach to all processes of this cgroup (v2) and of those below it,"
                              " and to those that come later: a path as in /proc/PID/cgroup, or"
                              " below /sys/fs/cgroup")
                   ->type_name("PATH");
  by_comm_ = app.add_option("--comm", comm_,
                            "Attach to all processes with such a name (/proc/PID/comm), and to"
                            " those that come later: an expression as of grep -E, found anywhere"
                            " in it")
                 ->type_name("REGEX");
  app.add_option("--backend", backend_, "auto, tracepoint or pagemap")->type_name("NAME");
  app.add_flag("--sites", sites_,
               "Also the code, the mappings and the address ranges that copied most, by sampling;"
               " the counts of pages stay exact");
  count_ = app.add_option("-c,--count", period_,
                          "With --sites: sample one copy in N of each thread (64), as perf record"
                          " -c")
               ->type_name("N")
               ->check(CLI::Range(1U, kMostPeriod).description(""));
  app.add_flag("--latency", latency_,
               "Also how long the faults that copied took, in all and as a histogram.  Slows down"
               " each page fault of the machine meanwhile");
  app.add_flag("--diff", diff_,
               "Also compare copied pages with those of processes that still share the original,"
               " at intervals: how many bytes were changed.  Takes at most a sixth of a CPU"
               " for each process");
  app.add_flag("--diff-at-exit", diff_at_exit_,
               "The same for each process when it exits, however short its life: all processes are"
               " traced (ptrace), so none can be run under gdb or strace at the same time, nor run"
               " them.  Holds each at its exit, and at its start, for some 30 ms per GiB that is"
               " resident and some us per page copied; the report says how long");
}

Expected<std::optional<Selection>> MeasureArguments::selection() const {
  const auto given = (by_pid_->count() > 0 ? 1 : 0) + (by_cgroup_->count() > 0 ? 1 : 0) +
                     (by_comm_->count() > 0 ? 1 : 0);
  if (given == 0) return std::nullopt;
  if (given > 1) return wrong("-p, --cgroup, --comm: one of them");
  Selection selection;
  if (by_pid_->count() > 0) {
    selection.by = Selection::By::pid;
    selection.pids = pids_;
    std::sort(selection.pids.begin(), selection.pids.end());
    selection.pids.erase(std::unique(selection.pids.begin(), selection.pids.end()),
                         selection.pids.end());
    return selection;
  }
  const bool by_cgroup = by_cgroup_->count() > 0;
  selection.by = by_cgroup ? Selection::By::cgroup : Selection::By::comm;
  selection.argument = by_cgroup ? cgroup_ : comm_;
  if (selection.argument.empty()) {
    return wrong(by_cgroup ? "--cgroup: the path is empty" : "--comm: the expression is empty");
  }
  return selection;
}

Expected<MeasureOptions> MeasureArguments::options(std::vector<std::string> command) const {
  MeasureOptions options;
  options.command = std::move(command);
  if (count_->count() > 0 && !sites_) return wrong("-c: only with --sites");
  if (sites_) options.sampling.period = count_->count() == 0 ? kUsualPeriod : period_;
  const std::map<std::string, cow::BackendChoice> backends = {
      {"auto", cow::BackendChoice::automatic},
      {"tracepoint", cow::BackendChoice::tracepoint},
      {"pagemap", cow::BackendChoice::pagemap}};
  const auto chosen = backends.find(backend_);
  if (chosen == backends.end()) {
    return wrong("--backend: '" + backend_ + "' is not auto, tracepoint or pagemap");
  }
  options.backend = chosen->second;
  if (diff_) options.diff = Diff::at_intervals;
  if (diff_at_exit_) options.diff = Diff::at_exit;
  if (sites_ && options.backend == cow::BackendChoice::pagemap) {
    return wrong("--sites: the pagemap backend does not see who copies");
  }
  if (latency_ && options.backend == cow::BackendChoice::pagemap) {
    return wrong("--latency: the pagemap backend does not see faults");
  }
  if (latency_) options.timing = Timing::on;
  auto selected = selection();
  if (!selected) return tl::make_unexpected(selected.error());
  options.selection = std::move(*selected);
  if (options.selection && !options.command.empty()) {
    return wrong("give either " + options.selection->text() + " or a command, not both");
  }
  if (!options.selection && options.command.empty()) {
    if (otherwise_ == Otherwise::is_wrong) {
      return wrong("nothing to measure: give a command after --, or -p PID");
    }
    options.selection.emplace();
  }
  if (options.diff != Diff::none && options.selection && options.selection->pids.size() != 1) {
    return wrong("--diff, --diff-at-exit: only of a command, or of one process (-p PID)");
  }
  return options;
}

}  // namespace cowshed::cowtop
