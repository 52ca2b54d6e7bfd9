#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>

#include <cowshed/cow/ended_processes.h>
#include <cowshed/cow/subtrees.h>

namespace cowshed::cow {
namespace {

constexpr const char* kSeveralNames = "(others)";
constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();

// What is the same of those that are added up.  What is known of one is known of all.
struct MergeKind {
  std::size_t above = kNowhere;
  std::string comm;
  Role role = Role::child;
  bool shares_memory = false;
  bool has_executed = false;
  bool is_copied_known = false;
  bool is_shared_known = false;

  MergeKind(const ProcessCopies& process, std::size_t above_it)
      : above(above_it),
        comm(process.comm),
        role(process.role),
        shares_memory(process.shares_memory),
        has_executed(process.execs > 0),
        is_copied_known(process.copied_pages().has_value()),
        is_shared_known(process.shared_at_fork_bytes.has_value()) {}
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it
  auto operator<=>(const MergeKind&) const = default;
};

struct Sum {
  std::size_t first = 0;
  std::uint64_t copied_pages = 0;
};
using Sums = std::map<MergeKind, Sum>;

std::uint64_t copied_pages(const ProcessCopies& process) {
  return process.copied_pages().value_or(0);
}

bool is_sum(const ProcessCopies& process) { return process.processes > 1; }

// Those of `ended` that stay as they are.
std::vector<bool> choose(const std::vector<ProcessCopies>& processes,
                         const std::vector<std::size_t>& parents, std::vector<std::size_t> ended,
                         std::size_t most) {
  std::vector<bool> has_alive(processes.size());
  for (std::size_t i = processes.size(); i-- > 0;) {
    if (processes[i].alive || has_alive[i]) has_alive[parents[i]] = true;
  }
  std::stable_sort(ended.begin(), ended.end(), [&](std::size_t a, std::size_t b) {
    if (has_alive[a] != has_alive[b]) return bool{has_alive[a]};
    return copied_pages(processes[a]) > copied_pages(processes[b]);
  });
  std::vector<bool> stays(processes.size());
  for (std::size_t i = 0; i < std::min(most, ended.size()); ++i) stays[ended[i]] = true;
  return stays;
}

void add(Sums& sums, const MergeKind& kind, const ProcessCopies& process, std::size_t i) {
  sums.try_emplace(kind, Sum{i}).first->second.copied_pages += copied_pages(process);
}

// Where there are too many names or places, those of the smallest sums no longer count.
void leave_out_small(std::vector<std::optional<MergeKind>>& kinds, const Sums& sums,
                     std::size_t most) {
  if (sums.size() <= most) return;
  std::vector<std::uint64_t> pages;
  for (const auto& [kind, sum] : sums) pages.push_back(sum.copied_pages);
  const auto least = pages.begin() + static_cast<std::ptrdiff_t>(most / 2);
  std::nth_element(pages.begin(), least, pages.end(), std::greater<>());
  for (std::optional<MergeKind>& kind : kinds) {
    if (!kind || sums.at(*kind).copied_pages > *least) continue;
    kind->above = kNowhere;
    kind->comm = kSeveralNames;
  }
}

void add(std::optional<std::uint64_t>& sum, const std::optional<std::uint64_t>& more) {
  if (more) sum = sum.value_or(0) + *more;
}

template <class T, class Same, class Add>
void add_lists(std::vector<T>& sums, const std::vector<T>& more, Same same, Add add_one) {
  for (const T& each : more) {
    const auto found =
        std::find_if(sums.begin(), sums.end(), [&](const T& sum) { return same(sum, each); });
    if (found == sums.end()) {
      sums.push_back(each);
    } else {
      add_one(*found, each);
    }
  }
}

void add(std::vector<ArenaCopies>& sums, const std::vector<ArenaCopies>& more) {
  add_lists(
      sums, more, [](const auto& a, const auto& b) { return a.name == b.name; },
      [](ArenaCopies& sum, const ArenaCopies& each) {
        if (!sum.bytes) sum.bytes = each.bytes;
        sum.copied_pages += each.copied_pages;
      });
}

void add(std::optional<std::vector<ObjectCopies>>& sums,
         const std::optional<std::vector<ObjectCopies>>& more) {
  if (!more) return;
  if (!sums) sums.emplace();
  const auto name = [](const ObjectCopies& each) {
    return std::tie(each.name, each.type, each.arena);
  };
  add_lists(
      *sums, *more, [&](const auto& a, const auto& b) { return name(a) == name(b); },
      [](ObjectCopies& sum, const ObjectCopies& each) { sum.copied_pages += each.copied_pages; });
}

void add(std::optional<std::vector<SentObjects>>& sums,
         const std::optional<std::vector<SentObjects>>& more) {
  if (!more) return;
  if (!sums) sums.emplace();
  const auto name = [](const SentObjects& each) {
    return std::tie(each.origin, each.name, each.type, each.kind);
  };
  add_lists(
      *sums, *more, [&](const auto& a, const auto& b) { return name(a) == name(b); },
      [](SentObjects& sum, const SentObjects& each) {
        sum.messages += each.messages;
        sum.objects += each.objects;
        sum.bytes += each.bytes;
      });
}

}  // namespace

std::vector<MergedProcess> merge_ended(const std::vector<ProcessCopies>& processes,
                                       const std::vector<bool>& may_be_merged, std::size_t most) {
  std::vector<MergedProcess> result;
  for (std::size_t i = 0; i < processes.size(); ++i) result.push_back({i, processes[i].ppid});
  std::vector<std::size_t> ended;
  for (std::size_t i = 1; i < processes.size(); ++i) {
    if (may_be_merged[i]) ended.push_back(i);
  }
  if (ended.size() <= most) return result;
  std::erase_if(ended, [&](std::size_t i) { return is_sum(processes[i]); });
  const std::vector<std::size_t> above = parents(processes);
  const std::vector<bool> stays = choose(processes, above, ended, most / 4);
  const auto is_merged = [&](std::size_t i) { return i > 0 && may_be_merged[i] && !stays[i]; };

  std::vector<std::optional<MergeKind>> kinds(processes.size());
  std::vector<std::size_t> staying_above(processes.size(), kNowhere);
  Sums sums;
  for (std::size_t i = 0; i < processes.size(); ++i) {
    // Parents come before their children.
    if (above[i] != i) staying_above[i] = is_merged(above[i]) ? staying_above[above[i]] : above[i];
    if (is_merged(i)) add(sums, kinds[i].emplace(processes[i], staying_above[i]), processes[i], i);
  }
  leave_out_small(kinds, sums, most / 4);
  sums.clear();
  for (std::size_t i = 0; i < processes.size(); ++i) {
    if (!kinds[i]) continue;
    const MergeKind& kind = *kinds[i];
    result[i].into = sums.try_emplace(kind, Sum{i}).first->second.first;
    if (kind.role == Role::child && (kind.above != kNowhere || kind.comm == kSeveralNames)) {
      result[i].ppid = processes[kind.above == kNowhere ? 0 : kind.above].pid;
    }
  }
  return result;
}

void add_to(ProcessCopies& sum, const ProcessCopies& more) {
  sum.processes += more.processes;
  if (sum.comm != more.comm) sum.comm = kSeveralNames;
  sum.start_ns = std::min(sum.start_ns, more.start_ns);
  sum.end_ns = std::max(sum.end_ns, more.end_ns);
  if (sum.exit_status != more.exit_status) sum.exit_status.reset();
  if (sum.signal != more.signal) sum.signal.reset();
  if (sum.not_measured.empty()) sum.not_measured = more.not_measured;
  sum.memory.reset();
  sum.unreadable = sum.unreadable || more.unreadable;
  sum.execs += more.execs;
  add(sum.arenas, more.arenas);
  add(sum.objects, more.objects);
  add(sum.transfers, more.transfers);
  for (const auto count :
       {&ProcessCopies::shared_at_fork_bytes, &ProcessCopies::copied_anon_pages,
        &ProcessCopies::copied_file_pages, &ProcessCopies::reused_pages,
        &ProcessCopies::zero_page_writes, &ProcessCopies::zero_filled_pages,
        &ProcessCopies::huge_splits, &ProcessCopies::collapsed_pages,
        &ProcessCopies::write_notify_faults, &ProcessCopies::failed_faults,
        &ProcessCopies::other_faults, &ProcessCopies::copied_pages_before_exec}) {
    add(sum.*count, more.*count);
  }
}

}  // namespace cowshed::cow
