#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <string_view>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/measure/selection_options.h>

namespace cowshed::cowtop {
namespace {

// "7,8"; CLI11's own delimiters pass over what is empty between two.
Expected<std::vector<pid_t>> pids_of(std::string_view text) {
  std::vector<pid_t> pids;
  for (;;) {
    const std::string_view word = text.substr(0, text.find(','));
    pid_t pid = 0;
    const char* end = word.data() + word.size();
    const auto parsed = std::from_chars(word.data(), end, pid);
    if (parsed.ec != std::errc() || parsed.ptr != end || pid <= 0)
      return wrong(word.empty() ? "no process ID: did pgrep find the process?"
                                : "'" + std::string(word) + "' is not a process ID");
    pids.push_back(pid);
    if (word.size() == text.size()) return pids;
    text.remove_prefix(word.size() + 1);
  }
}

}  // namespace

SelectionArguments::SelectionArguments(CLI::App& app) {
  by_pid_ = app.add_option("-p,--pid", pids_,
                           "Attach to these processes and their descendants; several separated by"
                           " commas, or given again")
                ->check([](const std::string& text) {
                  const auto pids = pids_of(text);
                  return pids ? std::string() : pids.error().message;
                })
                ->type_name("PID")
                ->allow_extra_args(false);
  by_cgroup_ = app.add_option("--cgroup", cgroup_,
                              "Attach to all processes of this cgroup (v2) and of those below it,"
                              " and to those that come later: a path as in /proc/PID/cgroup, or"
                              " below /sys/fs/cgroup; or the ID of a container or pod, 12 digits"
                              " or more")
                   ->type_name("PATH|ID");
  by_comm_ = app.add_option("--comm", comm_,
                            "Attach to all processes with such a name (/proc/PID/comm), and to"
                            " those that come later: a regular expression (ECMAScript's, without"
                            " back-references), found anywhere in it")
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
    for (const std::string& each : pids_) {
      TRY(const auto pids, pids_of(each));
      selection.pids.insert(selection.pids.end(), pids.begin(), pids.end());
    }
    std::ranges::sort(selection.pids);
    selection.pids.erase(std::unique(selection.pids.begin(), selection.pids.end()),
                         selection.pids.end());
    return selection;
  }
  const bool by_cgroup = by_cgroup_->count() > 0;
  selection.by = by_cgroup ? Selection::By::cgroup : Selection::By::comm;
  selection.argument = by_cgroup ? cgroup_ : comm_;
  // As the status of a Kubernetes pod has an ID: containerd://ID.
  const auto engine = selection.argument.find("://");
  if (by_cgroup && engine != std::string::npos) selection.argument.erase(0, engine + 3);
  if (selection.argument.empty())
    return wrong(by_cgroup ? "--cgroup: it is empty" : "--comm: the expression is empty");
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
