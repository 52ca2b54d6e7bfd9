#include <algorithm>
#include <array>
#include <csignal>
#include <map>
#include <set>
#include <utility>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/text/container.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kLittle = 1 << 20;

// Whether the process was not just asked to end, as a server asks its workers.
bool has_crashed(const cow::ProcessCopies& process) {
  constexpr std::array kRequests = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM};
  if (!process.signal) return false;
  return process.role == cow::Role::root ||
         std::ranges::find(kRequests, *process.signal) == kRequests.end();
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
  constexpr std::uint64_t kPart = 10;
  const auto most = most_shared.find(process.comm);
  if (!cow::goes_on(process) || !copies.shared_bytes || most == most_shared.end()) return false;
  const std::uint64_t each = *copies.shared_bytes / process.processes;
  return each < kLittle && each < most->second / kPart;
}

GroupKey key_of(const cow::ProcessCopies& process, const cow::ForkCopies& copies, bool is_parent,
                const MostShared& most_shared, bool by_container, std::size_t index) {
  const FailurePlace place = has_crashed(process) ? place_of_failure(process) : FailurePlace();
  return {process.role,
          process.comm,
          process.execs > 0 && process.role == cow::Role::child && !is_parent,
          cow::is_older(process),
          is_parent,
          shares_little(process, copies, most_shared),
          copies.copied_pages.has_value(),
          is_parent || copies.shared_bytes,
          has_crashed(process) ? process.signal : std::nullopt,
          place.line,
          place.called_from,
          process.exit_status.value_or(0) != 0,
          by_container ? container_name(process.cgroup) : "",
          index};
}

std::uint64_t before_exec_bytes(const cow::ProcessCopies& process) {
  return process.copied_pages_before_exec.value_or(0) * cow::kPageSize;
}

bool copied_for_parent(const cow::ProcessCopies& process) {
  const bool has_executed = process.role == cow::Role::child && process.execs > 0;
  return cow::goes_on(process) || (has_executed && before_exec_bytes(process) >= kLittle);
}

// One whose copies are also of its own parent's memory counts as a parent if it copied for a child.
bool acts_as_parent(const cow::ProcessCopies& process, const cow::ForkCopies& copies) {
  if (copies.forks == 0) return false;
  const std::uint64_t copied = copies.copied_bytes().value_or(0) + copies.exit_bytes();
  return !copied_for_parent(process) ||
         std::min(copies.copied_for_children_bytes, copied) >= kLittle;
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
          *copied - std::min(*copied, copies.copied_for_children_bytes) >= kLittle;
      group_.is_between = group_.is_between || is_between;
    }
    const bool is_of_children = group_.is_parent && copies.most_shared_with_child;
    if (is_of_children) add_shared(*copies.most_shared_with_child);
    else if (copies.shared_bytes) add_shared(*copies.shared_bytes / process.processes);
    if (const auto part = copies.copied_ratio(); part && !is_of_children) {
      group_.least_part = has_part_ ? std::min(group_.least_part, *part) : *part;
      group_.most_part = std::max(group_.most_part, *part);
      has_part_ = true;
    }
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
  void add_shared(std::uint64_t bytes) {
    group_.least_shared = group_.shared_bytes ? std::min(group_.least_shared, bytes) : bytes;
    group_.shared_bytes = std::max(group_.shared_bytes.value_or(0), bytes);
  }

  bool has_part_ = false;
  ProcessGroup group_;
  std::uint64_t still_shared_ = 0;
  std::uint64_t shared_ = 0;
};

std::vector<ProcessGroup> groups_of(const cow::Measurement& measurement,
                                    const std::vector<cow::ForkCopies>& copies, bool each_process) {
  const std::vector<cow::ProcessCopies>& processes = measurement.processes;
  std::set<std::string> containers;
  for (const cow::ProcessCopies& each : processes) containers.insert(container_name(each.cgroup));
  const bool by_container = each_process || containers.size() > 1;
  MostShared most_shared;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    std::uint64_t& most = most_shared[processes[i].comm];
    if (cow::goes_on(processes[i]))
      most = std::max(most, copies[i].shared_bytes.value_or(0) / processes[i].processes);
  }
  std::map<GroupKey, GroupBuilder> builders;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const bool is_parent = acts_as_parent(processes[i], copies[i]);
    const GroupKey key =
        key_of(processes[i], copies[i], is_parent, most_shared, by_container, each_process ? i : 0);
    builders.try_emplace(key, key, processes[i].pid).first->second.add(processes[i], copies[i]);
  }
  std::vector<ProcessGroup> groups;
  for (auto& [key, builder] : builders) groups.push_back(std::move(builder).group());
  std::ranges::stable_sort(groups, std::greater<>(), [](const ProcessGroup& group) {
    return std::pair(!group.only_ran(), group.copied_bytes.value_or(0));
  });
  return groups;
}

std::vector<ParentCopies> parents_of(const cow::Measurement& measurement,
                                     const std::vector<cow::ForkCopies>& copies) {
  constexpr double kNsPerSecond = 1e9;
  std::vector<ParentCopies> parents;
  const auto watched_ns = static_cast<std::uint64_t>(measurement.duration_s * kNsPerSecond);
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& child = measurement.processes[i];
    const std::uint64_t copied = child.parent_copied_pages.value_or(0) * cow::kPageSize;
    // Of children that lived at the same time nobody knows for which the parent copied.
    if (copied < kLittle || !cow::goes_on(child) || !copies[i].is_only_child) continue;
    const std::uint64_t end = child.end_ns.value_or(measurement.taken_ns);
    const std::uint64_t begin =
        cow::is_older(child) ? measurement.taken_ns - std::min(measurement.taken_ns, watched_ns)
                             : child.start_ns;
    parents.push_back({child.pid, child.ppid, static_cast<double>(end - begin) / kNsPerSecond,
                       copied, copies[i].shared_bytes, cow::is_older(child)});
  }
  std::ranges::stable_sort(parents, std::greater<>(), &ParentCopies::copied_bytes);
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
    std::ranges::stable_sort(shares_, std::greater<>(), &Share::bytes);
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
          before_exec * 2 >= process.all_copied_pages().value_or(0));
}

struct ExplainingSamples {
  const cow::SampledCopies* samples;
  double part;  // of their copies, those before the program's exit
};

// The part of a process's copies before its program's end.
double part_before_exit(const cow::ForkCopies& copies) {
  const auto copied = static_cast<double>(copies.copied_pages.value_or(0));
  return copies.exit_pages == 0 ? 1 : copied / (copied + static_cast<double>(copies.exit_pages));
}

std::vector<ExplainingSamples> explaining_samples(const cow::Measurement& measurement,
                                                  const std::vector<cow::ForkCopies>& copies) {
  const auto& processes = measurement.processes;
  std::vector<ExplainingSamples> result;
  bool are_whole = true;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const bool explains = is_explained(processes[i], copies[i].forks > 0);
    const double part = part_before_exit(copies[i]);
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

// Copies that neither a fork's sharing nor the program's end explains.
std::uint64_t first_writes_to_files(const cow::ProcessCopies& process,
                                    const cow::ForkCopies& copies) {
  const std::uint64_t all = process.all_copied_pages().value_or(0);
  return (all - std::min(all, copies.copied_pages.value_or(all) + copies.exit_pages)) *
         cow::kPageSize;
}

// The causes of the process's COPIED.  Relocations explain its first writes to files, which are not
// in it.
std::map<std::string, double> bytes_of_causes(const cow::ProcessCopies& process,
                                              const cow::ForkCopies& copies) {
  const auto all = static_cast<double>(process.all_copied_pages().value_or(0) * cow::kPageSize);
  const auto of_files = static_cast<double>(first_writes_to_files(process, copies));
  std::map<std::string, double> causes;
  double sum = 0;
  for (const auto& [name, share, samples, evidence] : *process.patterns) {
    if (name == cow::kProgramExit) continue;
    const double files = name == cow::kRelocation ? of_files : 0;
    const double bytes = std::max(share * all - files, 0.0);
    causes[name] += bytes;
    sum += bytes;
  }
  const auto copied = static_cast<double>(copies.copied_bytes().value_or(0));
  if (sum > copied)
    for (auto& [name, bytes] : causes) bytes *= copied / sum;
  return causes;
}

std::vector<Share> causes_of(const cow::Measurement& measurement,
                             const std::vector<cow::ForkCopies>& copies, std::uint64_t all) {
  Shares shares;
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    if (!process.patterns || !is_explained(process, copies[i].forks > 0)) continue;
    for (const auto& [name, bytes] : bytes_of_causes(process, copies[i]))
      shares[name].bytes += static_cast<std::uint64_t>(bytes);
  }
  return std::move(shares).of(all);
}

// Most of these are first writes to files.
std::uint64_t relocated_bytes(const cow::ProcessCopies& process) {
  double share = 0;
  if (process.patterns)
    for (const cow::CopyPattern& each : *process.patterns)
      if (each.pattern == cow::kRelocation) share = each.share;
  return static_cast<std::uint64_t>(
      share * static_cast<double>(process.all_copied_pages().value_or(0) * cow::kPageSize));
}

// What a child has beyond its copies and what it got at its fork: it may be the last to share that,
// but only what it touched first is new.  After its last sample it gave nothing back, as far as is
// known.
std::uint64_t own_bytes(const cow::ProcessCopies& process) {
  if (process.role != cow::Role::child || !cow::goes_on(process) || !process.memory) return 0;
  const cow::MemorySample& memory = *process.memory;
  if (process.zero_filled_pages && process.all_copied_pages()) {
    const std::uint64_t copied = *process.all_copied_pages() * cow::kPageSize;
    const std::uint64_t touched = process.touched_pages();
    const std::uint64_t since = touched - std::min(touched, memory.touched_pages);
    const std::uint64_t then =
        std::min(memory.private_bytes - std::min(memory.private_bytes, copied),
                 memory.touched_pages * cow::kPageSize);
    return then + since * cow::kPageSize;
  }
  if (!process.shared_at_fork_bytes) return 0;
  const std::uint64_t all = memory.private_bytes + memory.shared_bytes;
  return all - std::min(all, *process.shared_at_fork_bytes);
}

// What an older child had alone before the measurement: copies, or memory of its own.
std::uint64_t private_since_before(const cow::ProcessCopies& process) {
  const std::uint64_t alone = process.memory ? process.memory->private_bytes : 0;
  const std::uint64_t pages =
      process.all_copied_pages().value_or(0) + process.zero_filled_pages.value_or(0);
  return alone - std::min(alone, pages * cow::kPageSize);
}

void add_frozen(const cow::ProcessCopies& process, bool has_forked, Summary& summary) {
  if (!process.transfers) return;
  for (const cow::SentObjects& each : *process.transfers) {
    if (each.origin != "freeze") continue;
    if (each.type == "frozen in part") {
      summary.is_frozen_in_part = summary.is_frozen_in_part || has_forked;
      continue;
    }
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

// What was given back was sampled, too.
std::vector<Share> shares_of_new(const std::vector<std::pair<std::string, std::uint64_t>>& pages,
                                 std::uint64_t held) {
  std::uint64_t all = 0;
  for (const auto& [name, count] : pages) all += count;
  Shares shares;
  for (const auto& [name, count] : pages)
    shares[name].bytes += static_cast<std::uint64_t>(
        static_cast<double>(held) * static_cast<double>(count) / static_cast<double>(all));
  return std::move(shares).of(held);
}

void add_new_memory(const cow::NewMemory& memory, Summary& summary) {
  std::vector<std::pair<std::string, std::uint64_t>> causes;
  for (const cow::MappingCopies& each : memory.causes)
    causes.emplace_back(each.name, each.estimated_copies);
  std::vector<std::pair<std::string, std::uint64_t>> sites;
  for (const cow::CodeSite& each : memory.sites)
    sites.emplace_back(site_name(each), each.estimated_copies);
  summary.new_causes = shares_of_new(causes, summary.own_bytes);
  summary.new_sites = shares_of_new(sites, summary.own_bytes);
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

bool Summary::has_new_memory() const {
  constexpr std::uint64_t kWorthSaying = 16 << 20;
  constexpr std::uint64_t kPartOfPeak = 5;
  return own_bytes >= std::max(kWorthSaying, most_peak_bytes / kPartOfPeak);
}

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
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(measurement);
  summary.groups = groups_of(measurement, copies, each_process);
  std::uint64_t explained_bytes = 0;
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    const bool has_forked = copies[i].forks > 0;
    summary.processes += process.processes;
    if (process.alive) summary.alive += process.processes;
    if (is_explained(process, has_forked))
      explained_bytes +=
          process.all_copied_pages().value_or(0) * cow::kPageSize - copies[i].exit_bytes();
    summary.exit_bytes += copies[i].exit_bytes();
    if (const std::uint64_t own = own_bytes(process); !has_forked && own > 0) {
      summary.own_bytes += own;
      if (own >= kLittle) summary.holders += process.processes;
    }
    add_frozen(process, has_forked, summary);
    if (!cow::goes_on(process)) continue;
    summary.sharers += process.processes;
    summary.shared_bytes += copies[i].shared_bytes.value_or(0);
    summary.file_bytes += first_writes_to_files(process, copies[i]);
    summary.relocated_bytes += relocated_bytes(process);
    if (cow::is_older(process) && measurement.exact) {
      summary.older += process.processes;
      summary.older_bytes += private_since_before(process);
    }
    summary.is_all_known = summary.is_all_known && copies[i].copied_pages;
  }
  for (const ProcessGroup& group : summary.groups) {
    // A build's thousand compilers each copy a few pages before they execute.
    (group.only_ran() ? summary.before_exec_bytes : summary.copied_bytes) +=
        group.copied_bytes.value_or(0);
    if (group.only_ran()) summary.ran += group.processes;
    if (group.forks > 0 && !group.copied_bytes) summary.are_parents_known = false;
  }
  const bool has_root = std::ranges::any_of(measurement.processes, [](const auto& process) {
    return process.alive && process.role == cow::Role::root;
  });
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
  summary.parents = parents_of(measurement, copies);
  const auto explaining = explaining_samples(measurement, copies);
  summary.mappings = mappings_of(measurement, explaining, explained_bytes);
  summary.causes = causes_of(measurement, copies, summary.copied_bytes);
  summary.types = types_of(explaining, explained_bytes);
  summary.sites = sites_of(explaining, explained_bytes);
  if (measurement.new_memory && summary.own_bytes > 0)
    add_new_memory(*measurement.new_memory, summary);
  summary.python_unread = python_unread_of(explaining);
  return summary;
}

}  // namespace cowshed::cowtop
