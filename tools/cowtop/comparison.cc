#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <utility>

#include <cowshed/tools/cowtop/comparison.h>
#include <cowshed/tools/cowtop/frame_text.h>

namespace cowshed::cowtop {
namespace {

using Pages = std::optional<std::uint64_t>;
using PagesByName = std::map<std::string, Pages>;

void add(PagesByName& pages, const std::string& name, Pages more) {
  const auto [found, is_new] = pages.try_emplace(name, more);
  if (!is_new && more) found->second = found->second.value_or(0) + *more;
}

struct Place {
  std::string name;  // "server/worker[2]"
  std::string kind;  // "server/worker"
};

// Kinds of which some processes were added up (ended_processes.h), in either measurement.
using Kinds = std::set<std::string>;

// By PID: below which place the children of the last process of that PID are.
using Parents = std::map<pid_t, Place>;

Place place_below(const Parents& parents, const cow::ProcessCopies& process) {
  const auto parent = parents.find(process.ppid);
  if (process.role != cow::Role::child || parent == parents.end() || parent->second.name.empty()) {
    return {process.comm, process.comm};
  }
  return {parent->second.name + "/" + process.comm, parent->second.kind + "/" + process.comm};
}

void add_summed_kinds(Kinds& kinds, const cow::Measurement& measurement) {
  Parents parents;
  for (const cow::ProcessCopies& process : measurement.processes) {
    Place place = place_below(parents, process);
    if (process.processes > 1) {
      kinds.insert(place.kind);
    } else {
      parents[process.pid] = std::move(place);
    }
  }
}

// All of a kind in `summed` are one, for which of them are listed depends on what they copied; and
// what they started is where it is when they are not listed: below what started them.
PagesByName processes_of(const cow::Measurement& measurement, const Kinds& summed) {
  PagesByName pages;
  Parents parents;
  std::map<std::string, std::uint64_t> number;  // of siblings of one name
  for (const cow::ProcessCopies& process : measurement.processes) {
    Place place = place_below(parents, process);
    if (summed.contains(place.kind)) {
      add(pages, place.name + "[all]", process.copied_pages());
      const auto parent = parents.find(process.ppid);
      place = parent == parents.end() ? Place() : parent->second;
    } else {
      const std::uint64_t ordinal = ++number[place.name];
      if (process.role == cow::Role::child || ordinal > 1)
        place.name += fmt::format("[{}]", ordinal);
      add(pages, place.name, process.copied_pages());
    }
    if (process.processes == 1) parents[process.pid] = std::move(place);
  }
  return pages;
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

// Of either kind of what was sampled, where what was left out of the list is not 0.
struct Sampled {
  PagesByName pages;
  bool whole = false;
  std::uint64_t period = 1;  // one copy in so many is a sample
};

template <class T, class Name>
std::optional<Sampled> sampled_of(const cow::Measurement& measurement,
                                  std::vector<T> cow::SampledCopies::* list, Name name) {
  if (!measurement.sampled) return std::nullopt;
  Sampled result;
  std::uint64_t samples = 0;
  for (const T& each : (*measurement.sampled).*list) {
    add(result.pages, name(each), each.estimated_copies);
    samples += each.samples;
  }
  result.whole = samples == measurement.sampled->samples;
  if (measurement.sampling) result.period = measurement.sampling->period;
  return result;
}

// `absent_before`, `absent_after`: what it means that a name is not there.
std::vector<Change> changes(const PagesByName& before, Pages absent_before,
                            const PagesByName& after, Pages absent_after) {
  std::map<std::string, Change> found;
  for (const auto& [name, pages] : before) found[name] = {name, pages, absent_after};
  for (const auto& [name, pages] : after) {
    found.try_emplace(name, Change{name, absent_before, pages}).first->second.after = pages;
  }
  std::vector<Change> result;
  result.reserve(found.size());
  for (auto& [name, change] : found) result.push_back(std::move(change));
  std::stable_sort(result.begin(), result.end(), [](const Change& a, const Change& b) {
    return std::abs(a.growth()) > std::abs(b.growth());
  });
  return result;
}

// Whether so many as on the other side need not have had a sample here: three periods have none
// once in 20 times.
bool is_too_few(const Sampled& side, const std::string& name, Pages there) {
  constexpr std::uint64_t kPeriods = 3;
  return side.period > 1 && !side.pages.contains(name) &&
         there.value_or(0) < kPeriods * side.period;
}

Pages zero_if(bool known) { return known ? Pages(0) : std::nullopt; }

std::vector<Change> changes(const std::optional<Sampled>& before,
                            const std::optional<Sampled>& after) {
  auto result = changes(before ? before->pages : PagesByName(), zero_if(before && before->whole),
                        after ? after->pages : PagesByName(), zero_if(after && after->whole));
  for (Change& change : result) {
    if (before && is_too_few(*before, change.name, change.after)) change.before.reset();
    if (after && is_too_few(*after, change.name, change.before)) change.after.reset();
  }
  return result;
}

Pages total_of(const cow::Measurement& measurement) {
  Pages total;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (const auto pages = process.copied_pages()) total = total.value_or(0) + *pages;
  }
  return total;
}

std::string site_name(const cow::CodeSite& site) {
  return site.frames.empty() ? "??" : frame_text(site.frames.back());
}

}  // namespace

std::int64_t Change::growth() const {
  return static_cast<std::int64_t>(after.value_or(0)) -
         static_cast<std::int64_t>(before.value_or(0));
}

Comparison compare(const cow::Measurement& before, const cow::Measurement& after) {
  Comparison comparison;
  comparison.total = {"", total_of(before), total_of(after)};
  Kinds summed;
  add_summed_kinds(summed, before);
  add_summed_kinds(summed, after);
  comparison.processes = changes(processes_of(before, summed), std::nullopt,
                                 processes_of(after, summed), std::nullopt);
  const auto objects_before = objects_of(before);
  const auto objects_after = objects_of(after);
  comparison.objects =
      changes(objects_before.value_or(PagesByName()), zero_if(objects_before.has_value()),
              objects_after.value_or(PagesByName()), zero_if(objects_after.has_value()));
  using Copies = cow::SampledCopies;
  comparison.sites = changes(sampled_of(before, &Copies::sites, site_name),
                             sampled_of(after, &Copies::sites, site_name));
  const auto mapping_name = [](const cow::MappingCopies& mapping) { return mapping.name; };
  comparison.mappings = changes(sampled_of(before, &Copies::mappings, mapping_name),
                                sampled_of(after, &Copies::mappings, mapping_name));
  return comparison;
}

}  // namespace cowshed::cowtop
