#include <algorithm>
#include <array>
#include <csignal>
#include <map>
#include <set>
#include <utility>

#include <cowshed/cow/process_tree.h>
#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/text/container.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kLittle = 1 << 20;

constexpr std::string_view kProgramExit = "program exit";

// The part of its sampled copies that a process made while its program ended, 0 to 1.
double part_at_exit(const cow::ProcessCopies& process) {
  if (!process.patterns) return 0;
  const auto found =
      std::find_if(process.patterns->begin(), process.patterns->end(),
                   [](const cow::CopyPattern& each) { return each.pattern == kProgramExit; });
  return found == process.patterns->end() ? 0 : found->share;
}

// Bytes that forks made the process copy, those at its exit with them.  `has_forked`: children that
// share its memory.
std::optional<std::uint64_t> all_copied_by_forks(const cow::ProcessCopies& process,
                                                 bool has_forked) {
  std::optional<std::uint64_t> pages = process.copied_pages();
  if (process.shares_memory) {
    if (pages) pages = 0;
  } else if (process.execs > 0 && (process.role == cow::Role::root || has_forked)) {
    pages = process.copied_anon_pages;
    if (pages) *pages += process.copied_shared_file_pages.value_or(0);
    for (const cow::ArenaCopies& arena : process.arenas)
      if (pages) *pages += arena.copied_pages;
    // Of a program that was executed, its own children's.
    if (pages && process.role == cow::Role::child)
      *pages -= std::min(*pages, process.copied_pages_before_exec.value_or(0));
  } else if (process.execs > 0) {
    pages = process.copied_pages_before_exec;
  }
  if (!pages) return std::nullopt;
  return *pages * cow::kPageSize;
}

std::uint64_t copied_at_exit(const cow::ProcessCopies& process, bool has_forked) {
  const auto all = all_copied_by_forks(process, has_forked);
  return static_cast<std::uint64_t>(part_at_exit(process) * static_cast<double>(all.value_or(0)));
}

// What a program copies while it ends costs time, but hardly memory.
std::optional<std::uint64_t> copied_by_forks(const cow::ProcessCopies& process, bool has_forked) {
  const auto all = all_copied_by_forks(process, has_forked);
  return all ? std::optional(*all - copied_at_exit(process, has_forked)) : std::nullopt;
}

bool is_sharer(const cow::ProcessCopies& process) {
  return process.role == cow::Role::child && !process.shares_memory && process.execs == 0;
}

// What a child shared at its fork; of an older one: when the measurement began.
std::optional<std::uint64_t> shared_by(const cow::ProcessCopies& process) {
  if (!is_older(process)) return shown_at_fork(process);
  const auto copied = copied_by_forks(process, false);
  if (!process.memory || !copied) return std::nullopt;
  return process.memory->shared_bytes + *copied;
}

// Of what a sharer copied: private pages of files, which no fork shared.
std::uint64_t copied_of_files(const cow::ProcessCopies& process) {
  const std::uint64_t all = process.copied_pages().value_or(0);
  const std::uint64_t pages =
      is_sharer(process) ? all - process.copied_shared_pages().value_or(all) : 0;
  return static_cast<std::uint64_t>((1 - part_at_exit(process)) *
                                    static_cast<double>(pages * cow::kPageSize));
}

// Whether the process was not just asked to end, as a server asks its workers.
bool has_crashed(const cow::ProcessCopies& process) {
  constexpr std::array kRequests = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM};
  if (!process.signal) return false;
  return process.role == cow::Role::root ||
         std::find(kRequests.begin(), kRequests.end(), *process.signal) == kRequests.end();
}

struct GroupKey {
  cow::Role role;
  std::string comm;
  bool has_executed;
  bool is_older;
  bool is_parent;
  bool shares_little;
  std::optional<int> crash;
  std::string crash_place;
  std::string crash_caller;
  bool has_failed;
  std::string container;
  std::size_t index;  // of the process, where each is a group; else 0
  auto operator<=>(const GroupKey&) const = default;
};

// The one that ended it, or else the last that it handled.
std::optional<cow::FailedAccess> last_failure(const cow::ProcessCopies& process) {
  if (!process.sampled || process.sampled->failures.empty()) return std::nullopt;
  const std::vector<cow::FailedAccess>& all = process.sampled->failures;
  const auto fatal = std::find_if(all.begin(), all.end(),
                                  [](const cow::FailedAccess& each) { return !each.handled; });
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
bool shares_little(const cow::ProcessCopies& process, const MostShared& most_shared) {
  constexpr std::uint64_t kPart = 10;
  const auto shared = shared_by(process);
  const auto most = most_shared.find(process.comm);
  return is_sharer(process) && shared && most != most_shared.end() &&
         *shared / process.processes < kLittle &&
         *shared / process.processes < most->second / kPart;
}

GroupKey key_of(const cow::ProcessCopies& process, bool is_parent, const MostShared& most_shared,
                bool by_container, std::size_t index) {
  const FailurePlace place = has_crashed(process) ? place_of_failure(process) : FailurePlace();
  return {process.role,
          process.comm,
          process.execs > 0 && process.role == cow::Role::child && !is_parent,
          is_older(process),
          is_parent,
          shares_little(process, most_shared),
          has_crashed(process) ? process.signal : std::nullopt,
          place.line,
          place.called_from,
          process.exit_status.value_or(0) != 0,
          by_container ? container_name(process.cgroup) : "",
          index};
}

void set_maximum(std::optional<std::uint64_t>& most, std::uint64_t value) {
  most = std::max(most.value_or(0), value);
}

// The children of each that share its memory, and the most that it shared with one of them.
struct Forks {
  std::uint64_t count = 0;
  std::optional<std::uint64_t> shared_bytes;
  // What it copied while they lived: at most, if some lived at the same time.
  std::uint64_t copied_bytes = 0;
  bool one_by_one = true;  // none lived at the same time as another
  std::uint64_t last_end = 0;
  // Of its own parent: what that shares with a parent in turn, and whether it has no other child.
  std::uint64_t parent_shared = 0;
  bool is_only = false;
};

// A subshell of a script, say, which then executed a program that is much larger.
bool is_of_former_program(const cow::ProcessCopies& child, const cow::ProcessCopies& parent) {
  constexpr std::uint64_t kPart = 10;
  if (parent.execs < 2 || !parent.memory) return false;
  const std::uint64_t shared = shared_by(child).value_or(0) / child.processes;
  const std::uint64_t all = parent.memory->shared_bytes + parent.memory->private_bytes;
  return shared < kLittle && shared < all / kPart;
}

std::vector<Forks> forks_of(const cow::Measurement& measurement) {
  const std::vector<cow::ProcessCopies>& processes = measurement.processes;
  std::vector<Forks> forks(processes.size());
  const auto parents = cow::parents(processes);
  for (std::size_t i = 0; i < processes.size(); ++i) {  // in order of start
    const cow::ProcessCopies& child = processes[i];
    if (!is_sharer(child) || parents[i] == i || is_of_former_program(child, processes[parents[i]]))
      continue;
    Forks& parent = forks[parents[i]];
    parent.count += child.processes;
    // A row that is the sum of several stands for its mean.
    if (const auto shared = shared_by(child))
      set_maximum(parent.shared_bytes, *shared / child.processes);
    const auto all = all_copied_by_forks(processes[parents[i]], true);
    if (measurement.exact)
      parent.copied_bytes +=
          child.parent_copied_pages ? *child.parent_copied_pages * cow::kPageSize : all.value_or(0);
    parent.one_by_one =
        parent.one_by_one && child.processes == 1 && child.start_ns >= parent.last_end;
    parent.last_end = std::max(parent.last_end, child.end_ns.value_or(measurement.taken_ns));
  }
  for (std::size_t i = 0; i < processes.size(); ++i) {
    if (parents[i] == i) continue;
    forks[i].is_only = forks[parents[i]].one_by_one;
    if (is_sharer(processes[parents[i]]))
      forks[i].parent_shared = shared_by(processes[parents[i]]).value_or(0);
  }
  return forks;
}

// One that also shares memory with its own parent counts as a parent if it copied for a child.
bool acts_as_parent(const cow::ProcessCopies& process, const Forks& forks) {
  if (forks.count == 0) return false;
  const std::uint64_t copied = all_copied_by_forks(process, true).value_or(0);
  return !is_sharer(process) || std::min(forks.copied_bytes, copied) >= kLittle;
}

// Of what a child got at its fork and did not copy, what it had not given back when its memory was
// last read: at the most, if it has copied or allocated since.
std::uint64_t still_held(const cow::ProcessCopies& process, std::uint64_t copied) {
  if (!process.memory || process.processes > 1) return UINT64_MAX;
  const auto [shared, alone, when] = *process.memory;
  const std::uint64_t own = copied + process.zero_filled_pages.value_or(0) * cow::kPageSize;
  // Pages that it was the last to share are its alone.
  return std::max(shared, shared + alone - std::min(shared + alone, own));
}

// What a child still shared when it was last seen.  nullopt: not known, as where it copied for its
// own children, or its parent for it, and either may be of what others share, too.
std::optional<std::uint64_t> still_shared(const cow::ProcessCopies& process, const Forks& forks) {
  constexpr std::uint64_t kPart = 100;
  const auto shared = shared_by(process);
  const auto all = copied_by_forks(process, false);
  if (!shared || !all) return std::nullopt;
  const std::uint64_t copied = *all - std::min(*all, copied_of_files(process));
  std::uint64_t unsure = std::min(copied, forks.copied_bytes);
  if (copied > *shared) return std::nullopt;
  std::uint64_t not_copied = *shared - copied;
  if (forks.is_only && process.parent_copied_pages) {
    const std::uint64_t by_parent =
        std::min(not_copied, *process.parent_copied_pages * cow::kPageSize);
    unsure += std::min(by_parent, forks.parent_shared);
    not_copied -= by_parent;
  }
  if (unsure > std::max(kLittle, *shared / kPart)) return std::nullopt;
  return std::min(not_copied, still_held(process, copied));
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

  void add(const cow::ProcessCopies& process, const Forks& forks) {
    if (!group_.failed && group_.crash) group_.failed = last_failure(process);
    if (const int status = process.exit_status.value_or(0); status != 0) {
      group_.least_status =
          group_.most_status == 0 ? status : std::min(group_.least_status, status);
      group_.most_status = std::max(group_.most_status, status);
    }
    group_.processes += process.processes;
    group_.forks += forks.count;
    if (const auto copied = copied_by_forks(process, forks.count > 0)) {
      const std::uint64_t each = *copied / process.processes;
      group_.least_copied = group_.copied_bytes ? std::min(group_.least_copied, each) : each;
      group_.most_copied = std::max(group_.most_copied, each);
      group_.copied_bytes = group_.copied_bytes.value_or(0) + *copied;
      group_.file_bytes += copied_of_files(process);
      const bool is_between = group_.is_parent && is_sharer(process) &&
                              *copied - std::min(*copied, forks.copied_bytes) >= kLittle;
      group_.is_between = group_.is_between || is_between;
    }
    const auto shared = shared_by(process);
    if (group_.is_parent && forks.shared_bytes) add_shared(*forks.shared_bytes, process);
    else if (shared) add_shared(*shared / process.processes, process);
    if (shared) {
      if (const auto still = still_shared(process, forks)) {
        still_shared_ += *still;
        shared_ += *shared;
      }
    }
  }

  ProcessGroup group() && {
    if (shared_ > 0)
      group_.still_shared = static_cast<double>(still_shared_) / static_cast<double>(shared_);
    return std::move(group_);
  }

 private:
  void add_shared(std::uint64_t bytes, const cow::ProcessCopies& process) {
    const std::uint64_t copied = copied_by_forks(process, false).value_or(0);
    const double part =
        bytes == 0 ? 0
                   : static_cast<double>(copied - std::min(copied, copied_of_files(process))) /
                         static_cast<double>(process.processes) / static_cast<double>(bytes);
    const bool is_first = !group_.shared_bytes;
    group_.least_part = is_first ? part : std::min(group_.least_part, part);
    group_.most_part = std::max(group_.most_part, part);
    group_.least_shared = is_first ? bytes : std::min(group_.least_shared, bytes);
    set_maximum(group_.shared_bytes, bytes);
  }

  ProcessGroup group_;
  std::uint64_t still_shared_ = 0;
  std::uint64_t shared_ = 0;
};

std::vector<ProcessGroup> groups_of(const cow::Measurement& measurement,
                                    const std::vector<Forks>& forks, bool each_process) {
  const std::vector<cow::ProcessCopies>& processes = measurement.processes;
  std::set<std::string> containers;
  for (const cow::ProcessCopies& each : processes) containers.insert(container_name(each.cgroup));
  const bool by_container = each_process || containers.size() > 1;
  MostShared most_shared;
  for (const cow::ProcessCopies& each : processes) {
    std::uint64_t& most = most_shared[each.comm];
    if (is_sharer(each)) most = std::max(most, shared_by(each).value_or(0) / each.processes);
  }
  std::map<GroupKey, GroupBuilder> builders;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const bool is_parent = acts_as_parent(processes[i], forks[i]);
    const GroupKey key =
        key_of(processes[i], is_parent, most_shared, by_container, each_process ? i : 0);
    builders.try_emplace(key, key, processes[i].pid).first->second.add(processes[i], forks[i]);
  }
  std::vector<ProcessGroup> groups;
  for (auto& [key, builder] : builders) groups.push_back(std::move(builder).group());
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    const auto rank = [](const ProcessGroup& group) {
      return std::pair(!group.only_ran(), group.copied_bytes.value_or(0));
    };
    return rank(a) > rank(b);
  });
  return groups;
}

std::vector<ParentCopies> parents_of(const cow::Measurement& measurement,
                                     const std::vector<Forks>& forks) {
  constexpr double kNsPerSecond = 1e9;
  std::vector<ParentCopies> parents;
  const auto watched_ns = static_cast<std::uint64_t>(measurement.duration_s * kNsPerSecond);
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& child = measurement.processes[i];
    const std::uint64_t copied = child.parent_copied_pages.value_or(0) * cow::kPageSize;
    // Of children that lived at the same time nobody knows for which the parent copied.
    if (copied < kLittle || !is_sharer(child) || !forks[i].is_only) continue;
    const std::uint64_t end = child.end_ns.value_or(measurement.taken_ns);
    const std::uint64_t begin =
        is_older(child) ? measurement.taken_ns - std::min(measurement.taken_ns, watched_ns)
                        : child.start_ns;
    parents.push_back({child.pid, child.ppid, static_cast<double>(end - begin) / kNsPerSecond,
                       copied, shared_by(child), is_older(child)});
  }
  std::stable_sort(parents.begin(), parents.end(),
                   [](const auto& a, const auto& b) { return a.copied_bytes > b.copied_bytes; });
  return parents;
}

class Shares {
 public:
  Share& operator[](const std::string& name) {
    const auto [entry, is_new] = index_.try_emplace(name, shares_.size());
    if (is_new) shares_.push_back({name, 0, 0, ""});
    return shares_[entry->second];
  }
  // The most first.
  std::vector<Share> of(std::uint64_t all) && {
    for (Share& share : shares_)
      if (all > 0) share.of_all = static_cast<double>(share.bytes) / static_cast<double>(all);
    std::stable_sort(shares_.begin(), shares_.end(),
                     [](const Share& a, const Share& b) { return a.bytes > b.bytes; });
    return std::move(shares_);
  }

 private:
  std::map<std::string, std::size_t> index_;
  std::vector<Share> shares_;
};

// Whose samples explain what forks made them copy: of a program that was executed, most are of its
// own start.
bool is_explained(const cow::ProcessCopies& process, bool has_forked) {
  const std::uint64_t before_exec = process.copied_pages_before_exec.value_or(0);
  return process.execs == 0 || process.role == cow::Role::root || has_forked ||
         (before_exec * cow::kPageSize >= kLittle * process.processes &&
          before_exec * 2 >= process.copied_pages().value_or(0));
}

struct ExplainingSamples {
  const cow::SampledCopies* samples;
  double part;  // of their copies, those before the program's exit
};

std::vector<ExplainingSamples> explaining_samples(const cow::Measurement& measurement,
                                                  const std::vector<Forks>& forks) {
  const auto& processes = measurement.processes;
  std::vector<ExplainingSamples> result;
  bool are_whole = true;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const bool explains = is_explained(processes[i], forks[i].count > 0);
    const double part = 1 - part_at_exit(processes[i]);
    are_whole = are_whole && explains && part == 1;
    if (explains && processes[i].sampled) result.push_back({&*processes[i].sampled, part});
  }
  if (!are_whole) return result;
  result.clear();
  if (measurement.sampled) result.push_back({&*measurement.sampled, 1});
  return result;
}

std::vector<Share> mappings_of(const cow::Measurement& measurement,
                               const std::vector<ExplainingSamples>& explaining,
                               std::uint64_t all) {
  Shares shares;
  for (const auto& [samples, part] : explaining) {
    for (const cow::MappingCopies& mapping : samples->mappings)
      if (!mapping.name.starts_with("arena "))
        shares[mapping.name].bytes += static_cast<std::uint64_t>(
            part * static_cast<double>(mapping.estimated_copies * cow::kPageSize));
  }
  for (const cow::ProcessCopies& process : measurement.processes) {
    for (const cow::ArenaCopies& arena : process.arenas) {
      Share& share = shares["arena " + arena.name];
      share.bytes += arena.copied_pages * cow::kPageSize;
      if (arena.bytes) share.remark = mebibytes(arena.bytes) + " MiB, frozen";
    }
  }
  return std::move(shares).of(all);
}

std::vector<Share> causes_of(const cow::Measurement& measurement, const std::vector<Forks>& forks,
                             std::uint64_t all) {
  Shares shares;
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    const bool has_forked = forks[i].count > 0;
    const std::uint64_t bytes = all_copied_by_forks(process, has_forked).value_or(0);
    if (!process.patterns || process.patterns->empty() || !is_explained(process, has_forked))
      continue;
    for (const cow::CopyPattern& pattern : *process.patterns)
      if (pattern.pattern != kProgramExit)
        shares[pattern.pattern].bytes +=
            static_cast<std::uint64_t>(pattern.share * static_cast<double>(bytes));
  }
  return std::move(shares).of(all);
}

// What a child has beyond its copies and what it got at its fork: it may be the last to share that.
std::uint64_t own_bytes(const cow::ProcessCopies& process) {
  if (process.role != cow::Role::child || !process.memory || is_older(process)) return 0;
  const cow::MemorySample& memory = *process.memory;
  const bool is_forked = is_sharer(process);
  const std::uint64_t all = memory.private_bytes + (is_forked ? memory.shared_bytes : 0);
  return all - std::min(all, is_forked ? *process.shared_at_fork_bytes
                                       : process.copied_bytes().value_or(0));
}

// What an older child had alone before the measurement: copies, or memory of its own.
std::uint64_t private_since_before(const cow::ProcessCopies& process) {
  const std::uint64_t alone = process.memory ? process.memory->private_bytes : 0;
  const std::uint64_t pages =
      process.copied_pages().value_or(0) + process.zero_filled_pages.value_or(0);
  return alone - std::min(alone, pages * cow::kPageSize);
}

void add_frozen(const cow::ProcessCopies& process, bool has_forked, Summary& summary) {
  if (!process.transfers) return;
  for (const cow::SentObjects& each : *process.transfers) {
    if (each.origin != "freeze") continue;
    summary.frozen_objects += each.objects;
    summary.frozen_bytes += each.bytes;
    // One without a count is of a process that has ended.
    summary.is_frozen_before_forks =
        summary.is_frozen_before_forks || has_forked || each.objects == 0;
  }
}

bool is_at_exit(const cow::CodeSite& site) { return cow::ends_of_program(site.stack.all()) > 0; }

// The kernel's and the dynamic linker's work for a program that was executed: no fork caused it.
bool is_at_start(const cow::CodeSite& site) {
  if (site.stack.empty()) return false;
  const cow::Frame& last = site.stack.back();
  return site.stack.front().function == "[execve(2)]" ||
         (last.function == "_start" && cow::base_name(last.module).starts_with("ld-linux"));
}

std::vector<Share> sites_of(const std::vector<ExplainingSamples>& explaining, std::uint64_t all) {
  Shares shares;
  for (const auto& [samples, part] : explaining) {
    for (const cow::CodeSite& site : samples->sites) {
      const std::uint64_t bytes = site.estimated_copies * cow::kPageSize;
      if (is_at_start(site)) all -= std::min(all, bytes);
      else if (part == 1 || !is_at_exit(site)) shares[site_name(site)].bytes += bytes;
    }
  }
  return std::move(shares).of(all);
}

// `part`: without those at a program's end, which destroys objects of all types.
std::vector<Share> types_of(const std::vector<ExplainingSamples>& explaining, std::uint64_t all) {
  Shares shares;
  for (const auto& [samples, part] : explaining)
    for (const cow::TypeCopies& type : samples->types)
      shares[type.name].bytes += static_cast<std::uint64_t>(
          part * static_cast<double>(type.estimated_copies * cow::kPageSize));
  return std::move(shares).of(all);
}

double python_unread_of(const std::vector<ExplainingSamples>& explaining) {
  std::uint64_t all = 0;
  std::uint64_t unread = 0;
  for (const auto& [samples, part] : explaining) {
    all += samples->samples;
    unread += samples->python_unread;
  }
  return all == 0 ? 0 : static_cast<double>(unread) / static_cast<double>(all);
}

bool is_little(const Summary& summary, const cow::Measurement& measurement) {
  constexpr std::uint64_t kPartOfShared = 100;
  constexpr std::uint64_t kPartOfPeak = 5;
  if (summary.copied_bytes < std::max(kLittle, summary.shared_bytes / kPartOfShared)) return true;
  std::uint64_t copied = 0;  // by children
  std::uint64_t children = 0;
  for (const ProcessGroup& group : summary.groups) {
    if (group.only_ran()) continue;
    if (group.is_parent ? group.most_copied / std::max<std::uint64_t>(group.forks, 1) >= kLittle
                        : group.most_copied >= kLittle) {
      return false;
    }
    if (group.is_parent) continue;
    copied += group.copied_bytes.value_or(0);
    children += group.processes;
  }
  // The memory is that of those that lived at the same time.
  const std::uint64_t at_once =
      measurement.memory ? std::min(children, measurement.memory->processes) : children;
  return children > 0 && copied / children * at_once < summary.most_peak_bytes / kPartOfPeak;
}

}  // namespace

bool ProcessGroup::only_ran() const {
  return has_executed && copied_bytes.value_or(0) / std::max<std::uint64_t>(processes, 1) < kLittle;
}

bool ProcessGroup::is_alike() const {
  return most_copied - least_copied <= std::max(most_copied / 10, kLittle);
}

bool ProcessGroup::shares_alike() const {
  const std::uint64_t most = shared_bytes.value_or(0);
  return most - least_shared <= std::max(most / 10, kLittle);
}

bool Summary::copy_before_exec() const {
  constexpr std::uint64_t kUsual = 128 << 10;
  return before_exec_bytes >= std::max(kLittle, ran * kUsual);
}

Summary summarize(const cow::Measurement& measurement, bool each_process) {
  Summary summary;
  const std::vector<Forks> forks = forks_of(measurement);
  summary.groups = groups_of(measurement, forks, each_process);
  std::uint64_t explained_bytes = 0;
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    const bool has_forked = forks[i].count > 0;
    summary.processes += process.processes;
    if (process.alive) summary.alive += process.processes;
    if (is_explained(process, has_forked))
      explained_bytes += process.copied_bytes().value_or(0) - copied_at_exit(process, has_forked);
    summary.exit_bytes += copied_at_exit(process, has_forked);
    if (!has_forked) summary.own_bytes += own_bytes(process);
    add_frozen(process, has_forked, summary);
    if (!is_sharer(process)) continue;
    summary.sharers += process.processes;
    summary.shared_bytes += shared_by(process).value_or(0);
    if (is_older(process) && measurement.exact) {
      summary.older += process.processes;
      summary.older_bytes += private_since_before(process);
    }
    summary.is_all_known = summary.is_all_known && copied_by_forks(process, has_forked);
  }
  for (const ProcessGroup& group : summary.groups) {
    // A build's thousand compilers each copy a few pages before they execute.
    (group.only_ran() ? summary.before_exec_bytes : summary.copied_bytes) +=
        group.copied_bytes.value_or(0);
    if (group.only_ran()) summary.ran += group.processes;
    if (group.forks > 0 && !group.copied_bytes) summary.are_parents_known = false;
  }
  const bool has_root = std::any_of(
      measurement.processes.begin(), measurement.processes.end(),
      [](const auto& process) { return process.alive && process.role == cow::Role::root; });
  if (!has_root) summary.left_behind = summary.alive;
  if (measurement.memory) {
    const cow::TreeMemory& memory = *measurement.memory;
    const std::uint64_t most = memory.most_peak_bytes;
    summary.most_peak_bytes =
        std::max(memory.peak_pss_bytes, most - std::min(most, summary.exit_bytes));
    summary.is_peak_known =
        summary.most_peak_bytes <= memory.peak_pss_bytes + memory.peak_pss_bytes / 10;
  }
  summary.is_little = is_little(summary, measurement);
  summary.parents = parents_of(measurement, forks);
  const auto explaining = explaining_samples(measurement, forks);
  summary.mappings = mappings_of(measurement, explaining, explained_bytes);
  summary.causes = causes_of(measurement, forks, summary.copied_bytes);
  summary.types = types_of(explaining, explained_bytes);
  summary.sites = sites_of(explaining, explained_bytes);
  summary.python_unread = python_unread_of(explaining);
  return summary;
}

}  // namespace cowshed::cowtop
