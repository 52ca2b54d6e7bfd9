#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <utility>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/summary.h>

namespace cowshed::cowtop {
namespace {

std::vector<ParentCopies> parents_of(const cow::Measurement& measurement,
                                     const std::vector<cow::ForkCopies>& copies) {
  constexpr double kNsPerSecond = 1e9;
  std::vector<ParentCopies> parents;
  const auto watched_ns = static_cast<std::uint64_t>(measurement.duration_s * kNsPerSecond);
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& child = measurement.processes[i];
    const std::uint64_t copied = child.parent_copied_pages.value_or(0) * cow::kPageSize;
    // Of children that lived at the same time nobody knows for which the parent copied.
    if (copied < kLeastBytes || !cow::goes_on(child) || !copies[i].is_only_child) continue;
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

// Most of these are first writes to files.
std::uint64_t relocated_bytes(const cow::ProcessCopies& process) {
  double share = 0;
  if (process.patterns)
    for (const cow::CopyPattern& each : *process.patterns)
      if (each.pattern == cow::kRelocation) share = each.share;
  return static_cast<std::uint64_t>(
      share * static_cast<double>(process.all_copied_pages().value_or(0) * cow::kPageSize));
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
    if (each.origin != cow::kFreeze) continue;
    if (each.type == cow::kFrozenInPart) {
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

// Whether its memory was in a sum of all.
bool was_read(const cow::ProcessCopies& process) {
  return process.peak || process.shares_memory || process.not_measured;
}

bool is_little(const Summary& summary) {
  if (summary.copied_bytes < kLeastBytes ||
      !is_part(summary.copied_bytes, summary.shared_bytes, kLittleOfAll)) {
    return true;
  }
  std::uint64_t copied = 0;  // by children
  std::uint64_t children = 0;
  double most_part = 0;  // that one of them copied
  for (const ProcessGroup& group : summary.groups) {
    if (group.only_ran()) continue;
    if (group.is_parent ? group.most_copied / std::max<std::uint64_t>(group.forks, 1) >= kLeastBytes
                        : group.most_copied >= kLeastBytes) {
      return false;
    }
    if (group.is_parent) continue;
    copied += group.copied_bytes.value_or(0);
    most_part = std::max(most_part, group.most_part);
    children += group.processes;
  }
  if (children == 0) return false;
  // Of short-lived ones chance decides how many lived at once, and what the peak was.
  const std::uint64_t at_once = copied / children * std::min(children, summary.most_at_once);
  const bool is_small = at_once < kLeastNew && most_part < kMuchOfAll;
  return is_small || !is_part(at_once, summary.most_peak_bytes, kMuchOfAll);
}

// The most processes that lived at the same time, of those with a row of their own.
std::uint64_t lived_at_once(const cow::Measurement& measurement) {
  std::vector<std::pair<std::uint64_t, int>> changes;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (process.processes > 1 || process.shares_memory) continue;
    changes.emplace_back(process.start_ns, 1);
    if (process.end_ns) changes.emplace_back(*process.end_ns, -1);
  }
  std::ranges::sort(changes);
  std::int64_t now = 0;
  std::int64_t most = 0;
  for (const auto& [when, change] : changes) most = std::max(most, now += change);
  return static_cast<std::uint64_t>(most);
}

// "3 x worker, server": who touched shared memory first.
std::string makers_of_shared_memory(const cow::Measurement& measurement, std::uint64_t& made) {
  std::map<std::string, std::uint64_t> makers;
  for (const cow::ProcessCopies& process : measurement.processes) {
    const std::uint64_t bytes = process.shared_memory_pages.value_or(0) * cow::kPageSize;
    made += bytes;
    if (bytes / process.processes >= kLeastBytes) makers[process.comm] += process.processes;
  }
  std::string text;
  for (const auto& [comm, processes] : makers) {
    if (!text.empty()) text += ", ";
    text += processes == 1 ? comm : fmt::format("{} x {}", processes, comm);
  }
  return text;
}

cow::Language heaviest(const std::vector<cow::Language>& languages,
                       const std::vector<cow::ForkCopies>& copies) {
  std::map<cow::Language, std::uint64_t> bytes;
  for (std::size_t i = 0; i < languages.size(); ++i)
    bytes[languages[i]] += copies[i].copied_bytes().value_or(0) + copies[i].new_bytes.value_or(0);
  const auto of_bytes = [](const auto& each) { return each.second; };
  const auto most = std::ranges::max_element(bytes, {}, of_bytes);
  return most == bytes.end() ? cow::Language::native : most->first;
}

}  // namespace

bool Summary::has_new_memory() const {
  // The memory is that of those that lived at the same time.
  const std::uint64_t at_once =
      held.sum / std::max<std::uint64_t>(holders, 1) * std::min(holders, most_at_once);
  return at_once >= kLeastNew && is_part(at_once, most_peak_bytes, kMuchOfAll);
}

const ProcessGroup* Summary::most_shared() const {
  const auto shared = [](const ProcessGroup& group) {
    return group.role == cow::Role::root || group.has_executed ? 0 : group.shared_bytes.value_or(0);
  };
  const auto most = std::ranges::max_element(groups, {}, shared);
  return most != groups.end() && shared(*most) > 0 ? &*most : nullptr;
}

const ProcessGroup* Summary::largest_holders() const {
  const auto sum = [](const ProcessGroup& group) { return group.held.sum; };
  const auto most = std::ranges::max_element(groups, {}, sum);
  return most == groups.end() || most->holders == 0 ? nullptr : &*most;
}

const Share* Summary::line_of(const ProcessGroup& group) const {
  if (new_sites.empty() || !is_part(group.held_new.sum, new_bytes, kHalfOfAll)) return nullptr;
  const Share& site = new_sites.front();
  return site.file.empty() || site.of_all < kHalfOfAll ? nullptr : &site;
}

bool Summary::copy_before_exec() const {
  return before_exec_bytes >= std::max(kLeastBytes, ran * kBeforeExec);
}

Summary summarize(const cow::Measurement& measurement, bool each_process) {
  Summary summary;
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(measurement);
  const std::vector<cow::Language> languages = cow::languages_of(measurement);
  summary.language = heaviest(languages, copies);
  summary.groups = groups_of(measurement, copies, each_process);
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    const bool has_forked = copies[i].forks > 0;
    summary.processes += process.processes;
    if (process.alive) summary.alive += process.processes;
    summary.exit_bytes += copies[i].exit_bytes();
    summary.new_bytes += copies[i].new_bytes.value_or(0);
    add_frozen(process, has_forked, summary);
    if (cow::goes_on(process) || maps_data(process)) {
      if (process.role == cow::Role::child) summary.sharers += process.processes;
      summary.shared_bytes += copies[i].shared_bytes.value_or(0);
    }
    if (!cow::goes_on(process)) continue;
    summary.file_bytes += first_writes_to_files(process, copies[i]);
    summary.relocated_bytes += relocated_bytes(process);
    if (cow::is_older(process) && measurement.exact) {
      summary.older += process.processes;
      summary.older_bytes += private_since_before(process);
    } else if (!copies[i].new_bytes) {
      summary.new_unknown += process.processes;
    }
    summary.is_all_known = summary.is_all_known && copies[i].copied_pages;
  }
  for (const ProcessGroup& group : summary.groups) {
    summary.holders += group.holders;
    summary.held.add(group.held);
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
    if (memory.shared_memory_bytes >= kLeastBytes &&
        is_part(memory.shared_memory_bytes, memory.peak_pss_bytes, kLittleOfAll)) {
      summary.shared_memory_bytes = memory.shared_memory_bytes;
      std::uint64_t made = 0;
      summary.shared_memory_by = makers_of_shared_memory(measurement, made);
      summary.is_shared_memory_least =
          made > memory.shared_memory_bytes && !are_alike(memory.shared_memory_bytes, made);
    }
    const std::uint64_t most = memory.most_peak_bytes;
    summary.most_at_once = std::max(memory.processes, lived_at_once(measurement));
    summary.most_peak_bytes =
        std::max(memory.peak_pss_bytes, most - std::min(most, summary.exit_bytes));
    summary.is_peak_known =
        are_alike(memory.peak_pss_bytes, summary.most_peak_bytes) &&
        (measurement.exact || std::ranges::all_of(measurement.processes, &was_read));
    summary.is_peak_bounded = measurement.exact || summary.is_peak_known;
  }
  summary.is_little = is_little(summary);
  summary.parents = parents_of(measurement, copies);
  static_cast<Shares&>(summary) =
      shares_of(measurement, copies, languages, summary.copied_bytes, summary.new_bytes);
  return summary;
}

}  // namespace cowshed::cowtop
