#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include <cowshed/cow/arenas/most_copied.h>
#include <cowshed/cow/backends/process_rollup.h>
#include <cowshed/cow/process_tree.h>

namespace cowshed::cow {
namespace {

constexpr const char* kSeveralNames = "(others)";
constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();

// Processes that become one: the nearest process above them that stays, and what they are.
struct Row {
  std::size_t above = kNowhere;
  Role role = Role::child;
  std::string comm;
  bool has_executed = false;
  bool shares_memory = false;
  bool is_known = false;  // what they copied
  auto operator<=>(const Row&) const = default;
};

std::uint64_t copied_pages(const ProcessCopies& process) {
  return process.all_copied_pages().value_or(0);
}

// Those that stay: what may not be merged, and the `most` of the others that copied most.
std::vector<bool> staying(const std::vector<ProcessCopies>& processes,
                          const std::vector<EndedProcess>& ended, std::size_t most) {
  std::vector<bool> stays(processes.size(), true);
  std::vector<std::size_t> single;
  for (std::size_t i = 1; i < processes.size(); ++i) {
    if (!ended[i].may_be_merged) continue;
    stays[i] = false;
    if (processes[i].processes == 1) single.push_back(i);
  }
  std::ranges::stable_sort(single, std::greater<>(),
                           [&](std::size_t i) { return copied_pages(processes[i]); });
  for (std::size_t i = 0; i < std::min(most, single.size()); ++i) stays[single[i]] = true;
  return stays;
}

// The row of each that does not stay.
std::vector<std::optional<Row>> rows_of(const std::vector<ProcessCopies>& processes,
                                        const std::vector<bool>& stays) {
  const std::vector<std::size_t> parent = parents(processes);
  std::vector<std::size_t> above(processes.size(), kNowhere);
  std::vector<std::optional<Row>> rows(processes.size());
  for (std::size_t i = 0; i < processes.size(); ++i) {
    // Parents come before their children.
    if (parent[i] != i) above[i] = stays[parent[i]] ? parent[i] : above[parent[i]];
    if (stays[i]) continue;
    rows[i] = {above[i],
               processes[i].role,
               processes[i].comm,
               processes[i].execs > 0,
               processes[i].shares_memory,
               processes[i].all_copied_pages().has_value()};
  }
  return rows;
}

// Where there are more rows than `most`, those that copied least become one.
void join_small(std::vector<std::optional<Row>>& rows, const std::vector<ProcessCopies>& processes,
                std::size_t most) {
  std::map<Row, std::uint64_t> sums;
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (rows[i]) sums[*rows[i]] += copied_pages(processes[i]);
  if (sums.size() <= most) return;
  std::vector<std::uint64_t> pages;
  for (const auto& [row, sum] : sums) pages.push_back(sum);
  const auto least = pages.begin() + static_cast<std::ptrdiff_t>(most / 2);
  std::nth_element(pages.begin(), least, pages.end(), std::greater<>());
  for (std::optional<Row>& row : rows)
    if (row && sums.at(*row) <= *least)
      row = {kNowhere, row->role, kSeveralNames, false, row->shares_memory, row->is_known};
}

void add(std::optional<std::uint64_t>& sum, const std::optional<std::uint64_t>& more) {
  if (more) sum = sum.value_or(0) + *more;
}

// Lists of what has a name, by which one of `more` is added to its like.
template <class T, class Name, class Add>
void add(std::vector<T>& sums, const std::vector<T>& more, Name name, Add add_one) {
  for (const T& each : more) {
    const auto found =
        std::ranges::find_if(sums, [&](const T& sum) { return name(sum) == name(each); });
    if (found == sums.end()) sums.push_back(each);
    else add_one(*found, each);
  }
}

template <class T, class Name, class Add>
void add(std::optional<std::vector<T>>& sums, const std::optional<std::vector<T>>& more, Name name,
         Add add_one) {
  if (!more) return;
  if (!sums) sums.emplace();
  add(*sums, *more, name, add_one);
}

}  // namespace

void merge_ended(const std::vector<EndedProcess>& ended, std::size_t most,
                 const std::function<void(std::size_t, std::size_t)>& merged) {
  const auto count = std::ranges::count_if(ended, &EndedProcess::may_be_merged);
  if (static_cast<std::size_t>(count) <= most) return;
  std::vector<ProcessCopies> processes;
  processes.reserve(ended.size());
  for (const EndedProcess& each : ended) processes.push_back(*each.copies);
  auto rows = rows_of(processes, staying(processes, ended, most / 4));
  join_small(rows, processes, most / 4);
  std::map<Row, std::size_t> first;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i]) continue;
    const std::size_t into = first.try_emplace(*rows[i], i).first->second;
    if (into != i) {
      add_to(*ended[into].copies, processes[i]);
      merged(i, into);
    } else if (rows[i]->role == Role::child && rows[i]->above != kNowhere) {
      ended[i].copies->ppid = processes[rows[i]->above].pid;
    }
  }
}

void add_to(ProcessCopies& sum, const ProcessCopies& more) {
  sum.processes += more.processes;
  if (sum.comm != more.comm) sum.comm = kSeveralNames;
  if (sum.title != more.title) sum.title.clear();
  if (sum.script != more.script) sum.script.clear();
  if (sum.cgroup != more.cgroup) sum.cgroup.clear();
  sum.start_ns = std::min(sum.start_ns, more.start_ns);
  sum.end_ns = std::max(sum.end_ns, more.end_ns);
  if (sum.exit_status != more.exit_status) sum.exit_status.reset();
  if (sum.signal != more.signal) sum.signal.reset();
  if (sum.sender != more.sender) sum.sender.reset();
  if (sum.out_of_memory != more.out_of_memory) sum.out_of_memory.reset();
  if (!sum.not_measured) sum.not_measured = more.not_measured;
  sum.memory.reset();
  sum.alike.reset();
  if (more.peak && (!sum.peak || sum.peak->pss_bytes < more.peak->pss_bytes)) sum.peak = more.peak;
  sum.parent_copied_pages.reset();
  sum.unreadable = sum.unreadable || more.unreadable;
  sum.execs += more.execs;
  add(
      sum.arenas, more.arenas, [](const ArenaCopies& each) { return each.name; },
      [](ArenaCopies& to, const ArenaCopies& each) {
        if (!to.bytes) to.bytes = each.bytes;
        to.copied_pages += each.copied_pages;
      });
  add(
      sum.files, more.files, [](const ArenaCopies& each) { return each.name; },
      [](ArenaCopies& to, const ArenaCopies& each) {
        to.bytes = to.bytes.value_or(0) + each.bytes.value_or(0);
        to.copied_pages += each.copied_pages;
        to.copied_again_pages += each.copied_again_pages;
        to.written_bytes += each.written_bytes;
        to.held_bytes.reset();
      });
  add(
      sum.objects, more.objects,
      [](const ObjectCopies& each) { return std::tie(each.name, each.type, each.arena); },
      [](ObjectCopies& to, const ObjectCopies& each) { to.copied_pages += each.copied_pages; });
  if (sum.objects) keep_most_copied(*sum.objects);
  add(
      sum.transfers, more.transfers,
      [](const SentObjects& each) {
        return std::tie(each.origin, each.name, each.type, each.kind);
      },
      add_counts);
  if (sum.transfers) keep_most_sent(*sum.transfers);
  if (sum.fork_costs && more.fork_costs) sum.fork_costs->add(*more.fork_costs);
  else sum.fork_costs.reset();
  add(sum.shared_at_fork_bytes, more.shared_at_fork_bytes);
  add(sum.most_risen_bytes, more.most_risen_bytes);
  add(sum.most_resident_bytes, more.most_resident_bytes);
  add(sum.held_at_end_bytes, more.held_at_end_bytes);
  sum.resident_before_bytes.reset();
  sum.shared_before_bytes.reset();
  for (const CountInfo& each : kCounts) add(sum.*each.count, more.*each.count);
}

}  // namespace cowshed::cow
