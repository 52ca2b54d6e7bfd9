#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fmt/ranges.h>
#include <fstream>
#include <iterator>
#include <unistd.h>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/cow/proc/memory_cgroups.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/measure/selection.h>
#include <cowshed/tools/cowtop/text/container.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kSearchesShare = 400;
constexpr std::uint64_t kBetweenSearchesNs = 1'000'000'000;

// A larger regular expression could overflow the stack, as the library is written.
constexpr std::size_t kMostExpression = 256;
constexpr std::uint64_t kMostRepetitions = 100;

// Counts as if all repetitions were within each other.
bool is_too_large(std::string_view expression) {
  if (expression.size() > kMostExpression) return true;
  std::uint64_t repetitions = 1;
  for (auto brace = expression.find('{'); brace != expression.npos;
       brace = expression.find('{', brace + 1)) {
    std::uint64_t count = 0;
    for (const char c : expression.substr(brace + 1, expression.find('}', brace) - brace - 1))
      if (c >= '0' && c <= '9')
        count = std::min(10 * count + static_cast<std::uint64_t>(c - '0'), kMostRepetitions + 1);
      else if (c == ',') repetitions *= std::max<std::uint64_t>(std::exchange(count, 0), 1);
    repetitions *= std::max<std::uint64_t>(count, 1);
    if (repetitions > kMostRepetitions) return true;
  }
  return false;
}

constexpr const char* kUsualCgroups = "/sys/fs/cgroup";

std::string cgroup_folder(const std::string& path) {
  const std::string usual = std::string(kUsualCgroups) + "/";
  if (path.starts_with(usual)) return path;
  return cow::cgroup_mount() + (path.starts_with("/") ? "" : "/") + path;
}

// 0, or an errno.
int add_processes(const std::string& folder, std::vector<pid_t>& pids) {
  errno = 0;
  std::ifstream file(folder + "/cgroup.procs");
  if (!file) return errno;
  pids.insert(pids.end(), std::istream_iterator<pid_t>(file), {});
  return file.bad() ? errno : 0;
}

std::vector<pid_t> processes_of_cgroup(const std::string& folder) {
  std::vector<pid_t> result;
  add_processes(folder, result);
  std::error_code ended;  // a cgroup may go while we walk
  const auto options = std::filesystem::directory_options::skip_permission_denied;
  for (std::filesystem::recursive_directory_iterator entry(folder, options, ended), end;
       !ended && entry != end; entry.increment(ended)) {
    std::error_code gone;
    if (entry->is_directory(gone)) add_processes(entry->path(), result);
  }
  return result;
}

}  // namespace

std::string Selection::text() const {
  switch (by) {
    case By::pid: return fmt::format("-p {}", fmt::join(pids, ","));
    case By::cgroup: return "--cgroup " + argument;
    case By::comm: return "--comm " + argument;
    case By::everything: break;
  }
  return "every process";
}

SelectedProcesses::SelectedProcesses(Selection selection, cow::ProcFiles proc)
    : selection_(std::move(selection)),
      proc_(std::move(proc)),
      searches_(kSearchesShare, kBetweenSearchesNs) {}

Expected<SelectedProcesses> SelectedProcesses::open(Selection selection, cow::ProcFiles proc) {
  SelectedProcesses selected(std::move(selection), std::move(proc));
  const std::string& argument = selected.selection_.argument;
  if (selected.selection_.by == Selection::By::cgroup && !is_container_name(argument)) {
    selected.cgroup_ = cgroup_folder(argument);
    std::vector<pid_t> pids;
    if (const int error = add_processes(selected.cgroup_, pids); error != 0) {
      if (error != ENOENT) return system_error("--cgroup " + selected.cgroup_, error);
      return wrong(
          fmt::format("--cgroup {}: no such cgroup: there is no {} (in a container, give the ID of "
                      "the one to measure, at least 12 digits)",
                      argument, selected.cgroup_));
    }
  }
  if (selected.selection_.by == Selection::By::comm) {
    if (is_too_large(argument)) {
      return wrong(
          fmt::format("--comm: '{}' is too large: at most {} characters, and {} repetitions",
                      argument.substr(0, kMostExpression), kMostExpression, kMostRepetitions));
    }
    try {
      // Each name is matched once for all ways at once, not once for each way.
      selected.comm_.assign(argument, std::regex::ECMAScript | std::regex_constants::__polynomial);
    } catch (const std::regex_error&) {
      return wrong(fmt::format("--comm: '{}' is not a regular expression", argument));
    }
  }
  return selected;
}

std::vector<pid_t> SelectedProcesses::candidates() const {
  if (selection_.by == Selection::By::pid) return selection_.pids;
  if (!cgroup_.empty()) return processes_of_cgroup(cgroup_);
  return proc_.processes().value_or(std::vector<pid_t>());
}

bool SelectedProcesses::is_selected(pid_t pid, const cow::ProcStat& stat) const {
  if (selection_.by == Selection::By::comm) return std::regex_search(stat.comm, comm_);
  if (!cgroup_.empty()) return true;
  if (selection_.by == Selection::By::cgroup)
    return is_named(container_of(proc_.cgroup(pid)), selection_.argument);
  return ::geteuid() == 0 || proc_.is_ours(pid);
}

SelectedProcesses::Found SelectedProcesses::find(
    const std::function<bool(pid_t)>& is_measured) const {
  const bool are_named = selection_.by == Selection::By::pid;
  Found result;
  for (const pid_t pid : candidates()) {
    if (pid == ::getpid()) {
      if (are_named) {
        result.refused.push_back(
            {ErrorCode::invalid_argument, 0, fmt::format("PID {}: is cowtop itself", pid)});
      }
      continue;
    }
    if (are_named) {
      if (const auto process = proc_.status_number(pid, "Tgid");
          process != 0 && process != static_cast<std::uint64_t>(pid)) {
        result.refused.push_back(
            {ErrorCode::invalid_argument, 0,
             fmt::format("PID {}: is a thread of PID {}: name that", pid, process)});
        continue;
      }
      result.wanted.push_back(pid);
      continue;
    }
    if (is_measured(pid)) continue;
    const auto stat = proc_.stat(pid);
    if (!stat) continue;
    result.starts[pid] = stat->start_ticks;
    const auto known = passed_over_.find(pid);
    const bool is_known = known != passed_over_.end() && known->second == stat->start_ticks;
    if (is_known || !stat->has_memory()) result.passed_over[pid] = stat->start_ticks;
    else if (is_selected(pid, *stat)) result.wanted.push_back(pid);
  }
  return result;
}

std::vector<pid_t> SelectedProcesses::processes(std::vector<Error>& refused) const {
  Found found = find([](pid_t) { return false; });
  std::ranges::move(found.refused, std::back_inserter(refused));
  if (found.wanted.empty() && refused.empty()) refused.push_back(no_process());
  return std::move(found.wanted);
}

Expected<cow::Attached> SelectedProcesses::attach_found(cow::Backend& backend) {
  Found found = find([&](pid_t pid) { return backend.measures(pid); });
  const std::vector<pid_t>& wanted = found.wanted;
  cow::Attached result;
  result.refused = std::move(found.refused);
  passed_over_ = std::move(found.passed_over);
  if (wanted.empty()) return result;
  auto attached = backend.attach(wanted);
  if (!attached && attached.error().code != ErrorCode::permission_denied &&
      attached.error().code != ErrorCode::no_such_process) {
    return tl::make_unexpected(attached.error());
  }
  if (!attached) {
    result.refused.push_back(attached.error());
  } else {
    result.processes = attached->processes;
    for (Error& error : attached->refused) result.refused.push_back(std::move(error));
  }
  for (const pid_t pid : wanted)
    if (!backend.measures(pid)) passed_over_[pid] = found.starts[pid];
  if (!grows()) return result;
  // They have just ended.
  std::erase_if(result.refused,
                [](const Error& error) { return error.code == ErrorCode::no_such_process; });
  return result;
}

Error SelectedProcesses::no_process() const {
  return {
      ErrorCode::no_such_process, 0,
      selection_.text() + (selection_.by == Selection::By::cgroup ? ": no process is in it"
                                                                  : ": there is no such process")};
}

Expected<cow::Attached> SelectedProcesses::attach(cow::Backend& backend) {
  auto attached = attach_found(backend);
  if (!attached || attached->processes > 0) return attached;
  if (!attached->refused.empty()) return tl::make_unexpected(attached->refused.front());
  return tl::make_unexpected(no_process());
}

Expected<cow::Attached> SelectedProcesses::attach_new(cow::Backend& backend) {
  const std::uint64_t begin = monotonic_ns();
  if (!grows() || !searches_.is_due(begin)) return cow::Attached{};
  const std::uint64_t cpu = thread_cpu_ns();
  auto attached = attach_found(backend);
  searches_.ran(monotonic_ns(), thread_cpu_ns() - cpu);
  return attached;
}

std::string refused_line(const cow::Attached& attached) {
  if (attached.refused.empty()) return {};
  const std::size_t more = attached.refused.size() - 1;
  return "not measured: " + attached.refused.front().message +
         (more == 0 ? "" : fmt::format("; and {} more", more));
}

}  // namespace cowshed::cowtop
