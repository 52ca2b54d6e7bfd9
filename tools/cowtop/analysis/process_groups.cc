#include <algorithm>
#include <array>
#include <csignal>
#include <fmt/format.h>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/process_groups.h>
#include <cowshed/tools/cowtop/text/container.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

// nullopt also if the process was just asked to end, as a server asks its workers.
std::optional<int> crash_of(const cow::ProcessCopies& process) {
  constexpr std::array kRequests = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM};
  if (!process.signal && process.out_of_memory && !process.exit_status) return SIGKILL;
  const bool is_crash =
      process.signal && (process.role == cow::Role::root ||
                         std::ranges::find(kRequests, *process.signal) == kRequests.end());
  return is_crash ? process.signal : std::nullopt;
}

struct GroupKey {
  cow::Role role;
  std::string comm;
  bool has_executed;
  bool is_older;
  bool is_parent;
  bool shares_little;
  bool is_copied_known;
  bool is_shared_known;
  std::optional<int> crash;
  std::string crash_place;
  std::string crash_caller;
  std::optional<Sender> sender;
  std::string limit;  // empty: it was not short of memory
  bool has_failed;
  std::string container;
  std::size_t index;  // of the process, where each is a group; else 0
  auto operator<=>(const GroupKey&) const = default;
};

// The one that ended it, or else the last that it handled.
std::optional<cow::FailedAccess> last_failure(const cow::ProcessCopies& process) {
  if (!process.sampled || process.sampled->failures.empty()) return std::nullopt;
  const std::vector<cow::FailedAccess>& all = process.sampled->failures;
  const auto fatal = std::ranges::find(all, false, &cow::FailedAccess::handled);
  return fatal != all.end() ? *fatal : all.back();
}

// The innermost line with source, and the program's own line if that is another.
struct FailurePlace {
  std::string line;
  std::string called_from;
};
FailurePlace place_of_failure(const cow::ProcessCopies& process) {
  const auto failed = last_failure(process);
  if (!failed) return {};
  const cow::Frames& frames = failed->frames;
  if (frames.empty()) return {"??", ""};
  const cow::Frame* inner = &frames.back();
  for (const cow::Frame& frame : frames) {
    if (frame.file.empty() || frame.line == 0) continue;
    inner = &frame;
    break;
  }
  return {frame_text(*inner), inner == &frames.back() ? "" : frame_text(frames.back())};
}

// The most that a child of each name shared at its fork.
using MostShared = std::map<std::string, std::uint64_t>;

// A subshell of a shell script, say, which then executes what it is named after.
bool shares_little(const cow::ProcessCopies& process, const cow::ForkCopies& copies,
                   const MostShared& most_shared) {
  const auto most = most_shared.find(process.comm);
  if (!cow::goes_on(process) || !copies.shared_bytes || most == most_shared.end()) return false;
  const std::uint64_t each = *copies.shared_bytes / process.processes;
  return each < kLeastBytes && !is_part(each, most->second, kAlikeWithin);
}

std::uint64_t before_exec_bytes(const cow::ProcessCopies& process) {
  return process.copied_pages_before_exec.value_or(0) * cow::kPageSize;
}

bool copied_for_parent(const cow::ProcessCopies& process) {
  const bool has_executed = process.role == cow::Role::child && process.execs > 0;
  return cow::goes_on(process) || (has_executed && before_exec_bytes(process) >= kLeastBytes);
}

// One whose copies are also of its own parent's memory counts as a parent if it copied for a child.
bool acts_as_parent(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  if (copies.forks == 0) return false;
  const std::uint64_t copied = copies.copied_bytes().value_or(0) + copies.exit_bytes();
  return !copied_for_parent(process) ||
         std::min(copies.copied_for_children_bytes, copied) >= kLeastBytes;
}

bool has_executed(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  return process.execs > 0 && process.role == cow::Role::child &&
         !acts_as_parent(process, copies) && !maps_data(process);
}

// A server of multiprocessing's Manager is no worker, and only its code tells.
bool is_manager(const cow::ProcessCopies& process) {
  const auto serves = [](const cow::Frame& frame) {
    return frame.function.ends_with("_run_server") &&
           frame.file.ends_with("/multiprocessing/managers.py");
  };
  return process.sampled && std::ranges::any_of(process.sampled->sites, [&](const auto& site) {
           return std::ranges::any_of(site.stack.all(), serves);
         });
}

// The scripts of each name, where interpreters of one name run several.
using Scripts = std::map<std::string, std::set<std::string>>;

std::string name_in(const Scripts& scripts, const cow::ProcessCopies& process) {
  const auto its = scripts.find(process.comm);
  const bool are_several = its != scripts.end() && its->second.size() > 1;
  const std::string& name = are_several && process.title.empty() && !process.script.empty()
                                ? process.script
                                : process.name();
  return name + (is_manager(process) ? ": Manager" : "");
}

GroupKey key_of(const cow::ProcessCopies& process, const cow::ForkCopies& copies, bool is_parent,
                const MostShared& most_shared, const Scripts& scripts, bool by_container,
                std::size_t index) {
  const std::optional<int> crash = crash_of(process);
  const FailurePlace place = crash ? place_of_failure(process) : FailurePlace();
  const auto& shortage = process.out_of_memory;
  return {process.role,
          name_in(scripts, process),
          has_executed(process, copies),
          cow::is_older(process),
          is_parent,
          shares_little(process, copies, most_shared),
          copies.copied_pages.has_value(),
          is_parent || copies.shared_bytes,
          crash,
          place.line,
          place.called_from,
          crash && !shortage ? process.sender : std::nullopt,
          crash && shortage ? fmt::format("{} {}", shortage->is_sure, shortage->limit) : "",
          process.exit_status.value_or(0) != 0,
          by_container ? container_name(process.cgroup) : "",
          index};
}

class GroupBuilder {
 public:
  GroupBuilder(const GroupKey& key, pid_t pid) {
    group_.comm = key.comm;
    group_.container = key.container;
    group_.role = key.role;
    group_.has_executed = key.has_executed;
    group_.is_older = key.is_older;
    group_.is_parent = key.is_parent;
    group_.crash = key.crash;
    group_.crash_place = key.crash_place;
    group_.crash_caller = key.crash_caller;
    group_.pid = pid;
  }

  void add(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
    if (!group_.failed && group_.crash) group_.failed = last_failure(process);
    if (group_.crash && group_.processes == 0) {
      group_.killed_by = killed_by(process);
      group_.out_of_memory = process.out_of_memory;
    }
    if (const int status = process.exit_status.value_or(0); status != 0) {
      group_.least_status =
          group_.most_status == 0 ? status : std::min(group_.least_status, status);
      group_.most_status = std::max(group_.most_status, status);
    }
    group_.processes += process.processes;
    group_.forks += copies.forks;
    if (const auto copied = copies.copied_bytes()) {
      const std::uint64_t each = *copied / process.processes;
      group_.least_copied = group_.copied_bytes ? std::min(group_.least_copied, each) : each;
      group_.most_copied = std::max(group_.most_copied, each);
      group_.copied_bytes = group_.copied_bytes.value_or(0) + *copied;
      const bool is_between =
          group_.is_parent && copied_for_parent(process) &&
          *copied - std::min(*copied, copies.copied_for_children_bytes) >= kLeastBytes;
      group_.is_between = group_.is_between || is_between;
    }
    const bool is_of_children = group_.is_parent && copies.most_shared_with_child;
    group_.maps_data = group_.maps_data || maps_data(process);
    if (is_of_children) add_shared(*copies.most_shared_with_child + cow::file_bytes(process));
    else if (copies.shared_bytes) add_shared(*copies.shared_bytes / process.processes);
    if (const auto part = copies.copied_ratio(); part && !is_of_children) {
      group_.least_part = has_part_ ? std::min(group_.least_part, *part) : *part;
      group_.most_part = std::max(group_.most_part, *part);
      has_part_ = true;
    }
    if (copies.own_bytes) {
      group_.own.add(*copies.own_bytes, process.processes);
      group_.own_bytes = group_.own.sum;
      group_.own_known += process.processes;
    }
    add_holder(process, copies);
    if (copies.still_shared_bytes) {
      still_shared_ += *copies.still_shared_bytes;
      shared_ += *copies.shared_bytes;
    }
  }

  ProcessGroup group() && {
    if (shared_ > 0)
      group_.still_shared = static_cast<double>(still_shared_) / static_cast<double>(shared_);
    return std::move(group_);
  }

 private:
  void add_holder(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
    const std::uint64_t copied = copies.copied_bytes().value_or(0);
    const std::uint64_t fresh = copies.new_bytes.value_or(0);
    const std::uint64_t own = copies.own_bytes.value_or(copied + fresh);
    const std::uint64_t held = cow::ran_before(process) ? own - std::min(own, copied) : fresh;
    if (held / process.processes < kLeastHeld) return;
    // Without it, as if all were kept.
    const std::uint64_t shared = copies.still_shared_bytes ? *copies.shared_bytes : 0;
    const std::uint64_t kept = copied + copies.still_shared_bytes.value_or(0);
    group_.holders += process.processes;
    group_.are_holders_alive = group_.are_holders_alive && process.alive;
    group_.held.add(held, process.processes);
    group_.held_own.add(own, process.processes);
    group_.held_new.add(fresh, process.processes);
    group_.held_copies.add(copied, process.processes);
    if (process.memory) group_.free_bytes += process.memory->free_bytes.value_or(0);
    group_.held_before.add(cow::ran_before(process) ? held - std::min(held, fresh) : 0,
                           process.processes);
    group_.given_back.add(shared - std::min(shared, kept), process.processes);
  }
  void add_shared(std::uint64_t bytes) {
    group_.least_shared = group_.shared_bytes ? std::min(group_.least_shared, bytes) : bytes;
    group_.shared_bytes = std::max(group_.shared_bytes.value_or(0), bytes);
  }

  bool has_part_ = false;
  ProcessGroup group_;
  std::uint64_t still_shared_ = 0;
  std::uint64_t shared_ = 0;
};

}  // namespace

bool maps_data(const cow::ProcessCopies& process) {
  return cow::file_bytes(process) >= kLeastBytes * process.processes;
}

bool only_ran(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  return has_executed(process, copies) &&
         copies.copied_bytes().value_or(0) < kLeastBytes * process.processes;
}

bool ProcessGroup::only_ran() const {
  return has_executed &&
         copied_bytes.value_or(0) / std::max<std::uint64_t>(processes, 1) < kLeastBytes;
}

bool ProcessGroup::is_small() const { return only_ran() && own.most < kLeastNew; }

void Sizes::add(std::uint64_t bytes, std::uint64_t processes) {
  const std::uint64_t each = bytes / processes;
  sum += bytes;
  least = std::min(least, each);
  most = std::max(most, each);
}

void Sizes::add(const Sizes& more) {
  sum += more.sum;
  least = std::min(least, more.least);
  most = std::max(most, more.most);
}

bool Sizes::are_alike() const { return cowtop::are_alike(least, most); }

bool ProcessGroup::is_alike() const { return are_alike(least_copied, most_copied); }

bool ProcessGroup::shares_alike() const {
  return are_alike(least_shared, shared_bytes.value_or(0));
}

std::vector<ProcessGroup> groups_of(const cow::Measurement& measurement,
                                    const std::vector<cow::ForkCopies>& copies, bool each_process) {
  const std::vector<cow::ProcessCopies>& processes = measurement.processes;
  std::set<std::string> containers;
  for (const cow::ProcessCopies& each : processes) containers.insert(container_name(each.cgroup));
  const bool by_container = each_process || containers.size() > 1;
  MostShared most_shared;
  Scripts scripts;
  for (const cow::ProcessCopies& each : processes)
    if (!each.script.empty()) scripts[each.comm].insert(each.script);
  for (std::size_t i = 0; i < processes.size(); ++i) {
    std::uint64_t& most = most_shared[processes[i].comm];
    if (cow::goes_on(processes[i]))
      most = std::max(most, copies[i].shared_bytes.value_or(0) / processes[i].processes);
  }
  std::map<GroupKey, GroupBuilder> builders;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const bool is_parent = acts_as_parent(processes[i], copies[i]);
    const GroupKey key = key_of(processes[i], copies[i], is_parent, most_shared, scripts,
                                by_container, each_process ? i : 0);
    builders.try_emplace(key, key, processes[i].pid).first->second.add(processes[i], copies[i]);
  }
  std::vector<ProcessGroup> groups;
  for (auto& [key, builder] : builders) groups.push_back(std::move(builder).group());
  std::ranges::stable_sort(groups, std::greater<>(), [](const ProcessGroup& group) {
    const std::uint64_t copied = group.copied_bytes.value_or(0);
    return std::tuple(!group.only_ran(), copied < kLeastBytes ? 0 : copied,
                      group.own_bytes.value_or(0));
  });
  return groups;
}

}  // namespace cowshed::cowtop
