#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <set>

#include <cowshed/cow/process_tree.h>
#include <cowshed/tools/cowtop/analysis/comparison.h>
#include <cowshed/tools/cowtop/analysis/judgement.h>
#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

using Pages = std::optional<std::uint64_t>;
using PagesByName = std::map<std::string, Pages>;

// A sum of which a part is not known is not known.
void add(PagesByName& pages, const std::string& name, Pages more) {
  const auto [found, is_new] = pages.try_emplace(name, more);
  if (is_new) return;
  Pages& sum = found->second;
  sum = sum && more ? Pages(*sum + *more) : std::nullopt;
}

struct Place {
  std::string name;  // "server/worker[2]"
  std::string kind;  // "server/worker"
  std::size_t depth = 0;
};

// The name of a run's command, such as python or python3, and the name that is shown for it.
struct CommandName {
  std::string comm;
  std::string shown;
};

Place below(const Place& above, const cow::ProcessCopies& process, const CommandName& command) {
  constexpr std::size_t kLongest = 64;  // the kernel's names are shorter, a forged recording's not
  const std::string& name = process.comm == command.comm ? command.shown : process.comm;
  const std::string part = (above.depth == 0 ? "" : "/") + name.substr(0, kLongest);
  return {above.name + part, above.kind + part, above.depth + 1};
}

// Returns below what the children of a process at `place` are named.  In a chain of processes, full
// names would take memory with the square of its length: what is deeper than kDeepest is named
// beside its parent.
Place for_children(const Place& place, const Place& above) {
  constexpr std::size_t kDeepest = 32;
  return place.depth < kDeepest ? place : above;
}

// Kinds of which some processes were added up (backends/process_rollup.h), in either measurement.
using Kinds = std::set<std::string>;

void add_summed_kinds(Kinds& kinds, const cow::Measurement& measurement,
                      const CommandName& command) {
  const auto& processes = measurement.processes;
  const std::vector<std::size_t> parents = cow::parents(processes);
  std::vector<Place> places(processes.size());
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const Place above = parents[i] == i ? Place() : places[parents[i]];
    Place place = below(above, processes[i], command);
    if (processes[i].processes > 1) kinds.insert(place.kind);
    places[i] = for_children(place, above);
  }
}

// All of a kind in `summed` are one, for which of them are listed depends on what they copied; and
// what they started is where it is when they are not listed: below what started them.
struct Processes {
  PagesByName copied;
  PagesByName new_bytes;
};
Processes processes_of(const cow::Measurement& measurement, const Kinds& summed,
                       const CommandName& command) {
  const auto& processes = measurement.processes;
  const std::vector<std::size_t> parents = cow::parents(processes);
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(measurement);
  Processes result;
  const auto add_process = [&](const std::string& name, std::size_t i) {
    add(result.copied, name, copies[i].copied_pages);
    if (cow::goes_on(processes[i])) add(result.new_bytes, name, copies[i].new_bytes);
  };
  std::vector<Place> places(processes.size());  // below which the children of each are
  std::map<std::string, std::uint64_t> number;  // of siblings of one name
  for (std::size_t i = 0; i < processes.size(); ++i) {
    const cow::ProcessCopies& process = processes[i];
    const Place above = parents[i] == i ? Place() : places[parents[i]];
    Place place = below(above, process, command);
    if (summed.contains(place.kind)) {
      add_process(place.name + "[all]", i);
      place = above;
    } else {
      const std::uint64_t ordinal = ++number[place.name];
      if (process.role == cow::Role::child || ordinal > 1)
        place.name += fmt::format("[{}]", ordinal);
      add_process(place.name, i);
    }
    places[i] = for_children(place, above);
  }
  return result;
}

// Returns the name of the only root; empty: there are others.
std::string command_of(const cow::Measurement& measurement) {
  std::string name;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (process.role != cow::Role::root) continue;
    if (!name.empty()) return "";
    name = process.comm;
  }
  return name;
}

// nullopt: nothing is known of objects.
std::optional<PagesByName> objects_of(const cow::Measurement& measurement) {
  std::optional<PagesByName> pages;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!process.objects) continue;
    if (!pages) pages.emplace();
    for (const cow::ObjectCopies& object : *process.objects) {
      add(*pages, fmt::format("{}/{} ({})", object.arena, object.name, object.type),
          object.copied_pages);
    }
  }
  return pages;
}

// One list of what was sampled.
struct Sampled {
  PagesByName pages;
  std::uint64_t nameless = 0;  // copies that are unknown, or in no row of the list
  std::uint64_t period = 1;    // one copy in so many is a sample, at least
};

template <class T, class Name>
std::optional<Sampled> sampled_of(const cow::Measurement& measurement,
                                  std::vector<T> cow::SampledCopies::* list, Name name) {
  if (!measurement.sampled) return std::nullopt;
  Sampled result;
  std::uint64_t samples = 0;
  for (const T& each : (*measurement.sampled).*list) {
    const std::string its_name = name(each);
    add(result.pages, its_name, each.estimated_copies);
    samples += each.samples;
    if (its_name.starts_with("unknown")) result.nameless += each.estimated_copies;
  }
  std::uint64_t copies = 0;
  for (const cow::ProcessCopies& process : measurement.processes)
    copies += process.all_copied_pages().value_or(0);
  if (const std::uint64_t all = measurement.sampled->samples; samples < all)
    result.nameless += copies / all * (all - samples);
  if (const auto& sampling = measurement.sampling)
    result.period = std::max<std::uint64_t>(sampling->period, sampling->longest_period);
  return result;
}

// What it means that a name is not there.
enum class Absent : std::uint8_t { is_zero, was_not_there, is_not_known };

Pages pages_of(const PagesByName& pages, const std::string& name, Absent absent, bool& is_known) {
  const auto found = pages.find(name);
  const bool is_there = found != pages.end();
  if (is_there ? !found->second : absent == Absent::is_not_known) is_known = false;
  if (is_there) return found->second;
  return absent == Absent::is_zero ? Pages(0) : std::nullopt;
}

// The most changed first; how much what is not known may have changed is what is known of it.
void sort(std::vector<Change>& changes) {
  const auto size = [](const Change& change) {
    const auto most = std::max(change.before.value_or(0), change.after.value_or(0));
    const auto growth = change.growth();
    return growth ? static_cast<std::uint64_t>(std::abs(*growth)) : most;
  };
  std::ranges::stable_sort(changes, std::greater<>(), size);
}

std::vector<Change> changes(const PagesByName& before, Absent absent_before,
                            const PagesByName& after, Absent absent_after) {
  std::set<std::string> names;
  for (const PagesByName* side : {&before, &after})
    for (const auto& [name, pages] : *side) names.insert(name);
  std::vector<Change> result;
  result.reserve(names.size());
  for (const std::string& name : names) {
    Change& change = result.emplace_back();
    change.name = name;
    change.before = pages_of(before, name, absent_before, change.is_known);
    change.after = pages_of(after, name, absent_after, change.is_known);
  }
  sort(result);
  return result;
}

// Whether a name that `side` lacks may have had as many copies there as on the other side.  They
// may have had no sample: three periods have none once in 20 times.  Or they may be nameless, if
// these are more than on the other side.
bool may_lack(const Sampled& side, const Sampled& other, const std::string& name, Pages there) {
  if (side.pages.contains(name)) return false;
  const std::uint64_t pages = there.value_or(0);
  const std::uint64_t more = side.nameless - std::min(side.nameless, other.nameless);
  return (side.period > 1 && pages < kPeriodsUnseen * side.period) ||
         is_much(more * cow::kPageSize, pages * cow::kPageSize);
}

Absent zero_if(bool known) { return known ? Absent::is_zero : Absent::is_not_known; }

std::vector<Change> changes(const std::optional<Sampled>& before,
                            const std::optional<Sampled>& after) {
  auto result = changes(before ? before->pages : PagesByName(), zero_if(before.has_value()),
                        after ? after->pages : PagesByName(), zero_if(after.has_value()));
  for (Change& change : result) {
    if (!before || !after) continue;
    if (may_lack(*before, *after, change.name, change.after)) change.before.reset();
    if (may_lack(*after, *before, change.name, change.before)) change.after.reset();
    change.is_known = change.before && change.after;
  }
  sort(result);
  return result;
}

std::uint64_t not_known_of(const cow::Measurement& measurement,
                           const std::vector<cow::ForkCopies>& copies) {
  std::uint64_t processes = 0;
  for (std::size_t i = 0; i < copies.size(); ++i)
    if (!copies[i].copied_pages) processes += measurement.processes[i].processes;
  return processes;
}

// Of those of which it is known.
Pages total_of(const std::vector<cow::ForkCopies>& copies, Pages cow::ForkCopies::* figure) {
  Pages total;
  for (const cow::ForkCopies& each : copies)
    if (each.*figure) total = total.value_or(0) + *(each.*figure);
  return total;
}

// Whether what is not known is so of the same processes on both sides.
bool are_comparable(const PagesByName& before, const PagesByName& after) {
  const auto not_known = [](const PagesByName& side) {
    std::set<std::string> names;
    for (const auto& [name, pages] : side)
      if (!pages) names.insert(name);
    return names;
  };
  return not_known(before) == not_known(after);
}

}  // namespace

std::optional<std::int64_t> Change::growth() const {
  if (!is_known) return std::nullopt;
  return static_cast<std::int64_t>(after.value_or(0)) -
         static_cast<std::int64_t>(before.value_or(0));
}

Comparison compare(const cow::Measurement& before, const cow::Measurement& after) {
  Comparison comparison;
  using Copies = cow::ForkCopies;
  const std::vector<Copies> copies_before = cow::fork_copies(before);
  const std::vector<Copies> copies_after = cow::fork_copies(after);
  comparison.not_known_before = not_known_of(before, copies_before);
  comparison.not_known_after = not_known_of(after, copies_after);
  const Summary summary_before = summarize(before);
  const Summary summary_after = summarize(after);
  const auto peak = [](const cow::Measurement& measurement, const Summary& summary) {
    return summary.is_peak_known ? std::optional(measurement.memory->peak_pss_bytes) : std::nullopt;
  };
  comparison.peak_pss_bytes = {"", peak(before, summary_before), peak(after, summary_after),
                               before.memory && after.memory};
  const auto range = [](const cow::Measurement& measurement, const Summary& summary) {
    return measurement.memory && summary.is_peak_bounded
               ? Comparison::Range({measurement.memory->peak_pss_bytes, summary.most_peak_bytes})
               : std::nullopt;
  };
  comparison.peak_range_before = range(before, summary_before);
  comparison.peak_range_after = range(after, summary_after);
  comparison.at_exit = {"", summary_before.exit_bytes / cow::kPageSize,
                        summary_after.exit_bytes / cow::kPageSize};
  CommandName command_before = {command_of(before), command_of(before)};
  CommandName command_after = {command_of(after), command_of(after)};
  if (command_before.comm != command_after.comm && !command_before.comm.empty() &&
      !command_after.comm.empty()) {
    command_before.shown += "|" + command_after.comm;
    command_after.shown = command_before.shown;
  }
  Kinds summed;
  add_summed_kinds(summed, before, command_before);
  add_summed_kinds(summed, after, command_after);
  const Processes processes_before = processes_of(before, summed, command_before);
  const Processes processes_after = processes_of(after, summed, command_after);
  const auto of_each = [&](PagesByName Processes::* list) {
    return changes(processes_before.*list, Absent::was_not_there, processes_after.*list,
                   Absent::was_not_there);
  };
  const auto of_all = [&](Pages Copies::* figure, PagesByName Processes::* list) {
    return Change{"", total_of(copies_before, figure), total_of(copies_after, figure),
                  are_comparable(processes_before.*list, processes_after.*list)};
  };
  comparison.processes = of_each(&Processes::copied);
  comparison.process_new_bytes = of_each(&Processes::new_bytes);
  const auto is_unknown = [](const Change& each) { return !each.before && !each.after; };
  if (std::ranges::all_of(comparison.process_new_bytes, is_unknown))
    comparison.process_new_bytes.clear();
  comparison.total = of_all(&Copies::copied_pages, &Processes::copied);
  comparison.total.is_known &= comparison.total.before && comparison.total.after;
  comparison.new_bytes = of_all(&Copies::new_bytes, &Processes::new_bytes);
  comparison.new_bytes.is_known &= !comparison.process_new_bytes.empty();
  const auto objects_before = objects_of(before);
  const auto objects_after = objects_of(after);
  comparison.objects =
      changes(objects_before.value_or(PagesByName()), zero_if(objects_before.has_value()),
              objects_after.value_or(PagesByName()), zero_if(objects_after.has_value()));
  const auto of_sampled = [&](auto list, auto name) {
    return changes(sampled_of(before, list, name), sampled_of(after, list, name));
  };
  const auto its_name = [](const auto& each) { return each.name; };
  comparison.sites = of_sampled(&cow::SampledCopies::sites, site_name);
  comparison.mappings = of_sampled(&cow::SampledCopies::mappings, its_name);
  comparison.types = of_sampled(&cow::SampledCopies::types, its_name);
  return comparison;
}

}  // namespace cowshed::cowtop
