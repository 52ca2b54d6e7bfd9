#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <utility>

#include <cowshed/tools/cowtop/selection_options.h>

namespace cowshed::cowtop {
namespace {

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

SelectionArguments::SelectionArguments(CLI::App& app) {
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
}

Expected<std::optional<Selection>> SelectionArguments::selection() const {
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

Expected<cow::BackendChoice> SelectionArguments::backend() const {
  const std::map<std::string, cow::BackendChoice> backends = {
      {"auto", cow::BackendChoice::automatic},
      {"tracepoint", cow::BackendChoice::tracepoint},
      {"pagemap", cow::BackendChoice::pagemap}};
  const auto chosen = backends.find(backend_);
  if (chosen != backends.end()) return chosen->second;
  return wrong("--backend: '" + backend_ + "' is not auto, tracepoint or pagemap");
}

}  // namespace cowshed::cowtop
