#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/cow/process_tree.h>
#include <cowshed/tools/cowtop/analysis/evidence.h>
#include <cowshed/tools/cowtop/analysis/fork_evidence.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr double kNsOfSecond = 1e9;
constexpr double kNsOfMs = 1e6;

// At its end a program writes to all of its memory.  What other threads write between two forks is
// not told from that.
std::uint64_t written_for_each_fork(const cow::ProcessCopies& process) {
  const ForkCosts& costs = *process.fork_costs;
  const std::uint64_t in_all =
      process.all_copied_pages().value_or(0) + process.reused_pages.value_or(0);
  const std::uint64_t forks = costs.forks();
  if (forks > 1 && costs.beside_threads == 0)
    return costs.written_pages / (forks - 1) * cow::kPageSize;
  return in_all / std::max<std::uint64_t>(forks, 1) * cow::kPageSize;
}

void add_process(const cow::Measurement& measurement, const cow::ProcessCopies& process,
                 const cow::ForkCopies& copies, Forker& forker) {
  forker.comm = process.comm;
  forker.costs.add(*process.fork_costs);
  const double end = measurement.since_begin_s(process.end_ns.value_or(measurement.taken_ns));
  forker.lived_s += end - measurement.since_begin_s(process.start_ns);
  forker.went_on += copies.forks;
  forker.written_each = std::max(forker.written_each, written_for_each_fork(process));
  forker.shared = std::max(forker.shared, copies.most_shared_with_child.value_or(0));
}

// By children before they executed programs, and, if there are no others, by their parent.
std::uint64_t copied_for_programs(const Summary& summary) {
  const auto root = std::ranges::find(summary.groups, cow::Role::root, &ProcessGroup::role);
  if (root == summary.groups.end() || cow::is_shell(root->comm) || root->comm == "make" ||
      summary.ran == 0)
    return 0;
  const std::uint64_t by_root = summary.sharers == 0 ? root->copied_bytes.value_or(0) : 0;
  return (summary.copy_before_exec() ? summary.before_exec_bytes : 0) + by_root;
}

Offers of_failures(int error, const Evidence& evidence) {
  const auto forkers = forkers_of(*evidence.measurement);
  const bool is_it = std::ranges::any_of(forkers, [&](const Forker& forker) {
    return std::ranges::any_of(forker.costs.failures, [&](const ForkCosts::Failure& each) {
      return each.error == error || each.error == 0;
    });
  });
  return is_it ? Offers{{.is_urgent = true}} : Offers();
}

// Where settled memory, or huge pages, stay that from one fork to the next.
std::optional<Forker> keeper(const Evidence& evidence) {
  auto forkers = forkers_of(*evidence.measurement);
  if (forkers.empty() || forkers.front().only_ran() || !forkers.front().hardly_writes() ||
      !forkers.front().copies_tables())
    return std::nullopt;
  return std::move(forkers.front());
}

}  // namespace

double Forker::part_of_life() const {
  return lived_s > 0 ? static_cast<double>(costs.total_ns) / kNsOfSecond / lived_s : 0;
}

bool Forker::is_slow() const {
  return page_tables_each > kPageTables &&
         (static_cast<double>(costs.longest_ns) >= kLongForkMs * kNsOfMs ||
          part_of_life() >= kShownOfAll);
}

bool Forker::copies_tables() const {
  const auto median = costs.median_ns();
  return !median || static_cast<double>(*median) >=
                        static_cast<double>(page_tables_each) / kMiB * kTablesMs * kNsOfMs;
}

bool Forker::hardly_writes() const {
  return written_each < kLeastBytes || !is_part(written_each, shared, kLittleOfAll);
}

std::string Forker::each() const {
  std::string text = milliseconds(static_cast<double>(costs.median_ns().value_or(0))) +
                     std::string(kNoBreak) + "ms";
  const double a_second = lived_s > 0 ? static_cast<double>(costs.forks()) / lived_s : 0;
  if (costs.forks() > 1 && a_second >= 1) text += fmt::format(", {:.0f} times a second", a_second);
  return text;
}

std::vector<Forker> forkers_of(const cow::Measurement& measurement) {
  const auto copies = cow::fork_copies(measurement);
  const auto above = cow::parents(measurement.processes);
  std::map<std::string, Forker> by_name;
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    if (process.fork_costs && process.fork_costs->forks() + process.fork_costs->failed() > 0)
      add_process(measurement, process, copies[i], by_name[process.comm]);
    const auto parent = by_name.find(measurement.processes[above[i]].comm);
    if (above[i] == i || parent == by_name.end() || process.shares_memory) continue;
    Forker& forker = parent->second;
    if (process.execs > 0) forker.ran += process.processes;
    forker.page_tables_each = std::max(
        forker.page_tables_each, process.page_tables_at_fork_bytes.value_or(0) / process.processes);
  }
  std::vector<Forker> forkers;
  for (auto& [name, forker] : by_name) forkers.push_back(std::move(forker));
  std::ranges::stable_sort(forkers, std::greater<>(), [](const Forker& each) {
    return std::pair(each.costs.failed(), each.costs.total_ns);
  });
  return forkers;
}

const Forker* with_threads(const std::vector<Forker>& forkers) {
  const auto found = std::ranges::find_if(forkers, [](const Forker& each) {
    return each.went_on > 0 && each.costs.beside_threads > 0;
  });
  return found == forkers.end() ? nullptr : &*found;
}

Offers of_no_memory(const Remedy& /*remedy*/, const Evidence& evidence) {
  return of_failures(ENOMEM, evidence);
}

Offers of_no_processes(const Remedy& /*remedy*/, const Evidence& evidence) {
  return of_failures(EAGAIN, evidence);
}

Offers of_programs(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const std::uint64_t bytes = copied_for_programs(summary);
  const bool is_of_bytes = is_much(bytes, summary.copied_bytes + summary.before_exec_bytes);
  const auto forkers = forkers_of(*evidence.measurement);
  const Forker* forker = forkers.empty() ? nullptr : &forkers.front();
  const bool is_slow = forker != nullptr && forker->is_slow() && forker->only_ran() &&
                       !cow::is_shell(forker->comm) && forker->comm != "make";
  if (!is_slow) return is_of_bytes ? Offers{{bytes}} : Offers();
  return {{is_of_bytes ? bytes : 0, fmt::format("{}: a fork of {} takes {}", remedy.text,
                                                printable(forker->comm), forker->each())}};
}

Offers of_page_tables(const Remedy& remedy, const Evidence& evidence) {
  const Summary& summary = *evidence.summary;
  const auto forker = keeper(evidence);
  if (!forker || forker->page_tables_each <= kPageTables) return {};
  const std::uint64_t saved = (forker->page_tables_each - kPageTables) * at_once(summary);
  const bool is_large =
      saved >= kLeastTables && is_part(saved, summary.most_peak_bytes, kLittleOfAll);
  if (!forker->is_slow() && !is_large) return {};
  return {{saved, fmt::format("{}: each fork copies {} MiB of page tables, in {}", remedy.text,
                              mebibytes(forker->page_tables_each), forker->each())}};
}

Offers of_small_pages(const Remedy& remedy, const Evidence& evidence) {
  const auto forker = keeper(evidence);
  if (!forker || !forker->is_slow()) return {};
  return {{0, fmt::format("{}: a fork takes {}", remedy.text, forker->each())}};
}

Offers of_threads(const Remedy& /*remedy*/, const Evidence& evidence) {
  return with_threads(forkers_of(*evidence.measurement)) != nullptr ? Offers(1) : Offers();
}

}  // namespace cowshed::cowtop
