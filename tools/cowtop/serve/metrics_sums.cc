#include <algorithm>
#include <chrono>
#include <limits>

#include <cowshed/base/clock.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tools/cowtop/serve/metrics_sums.h>
#include <cowshed/tools/cowtop/text/container.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kOther = "other";
constexpr std::size_t kMostNames = 4 * cow::kMostObjects;  // of one process, over time
constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kUnusedNs = 3600 * kSecondNs;
// Container runtimes move a process to its cgroup after its start.
constexpr std::uint64_t kBetweenCgroupsNs = 30 * kSecondNs;

std::uint64_t grow(std::uint64_t& known, std::uint64_t now) {
  const std::uint64_t more = now - std::min(now, known);
  known = std::max(known, now);
  return more;
}

void add_to(std::optional<std::uint64_t>& sum, std::uint64_t more) { sum = sum.value_or(0) + more; }

// Cuts the IDs of 64 digits in a path, which say no more than their first 12, as docker ps shows
// them.
std::string with_short_ids(std::string_view path) {
  constexpr std::size_t kDigits = 64;
  constexpr std::size_t kShownDigits = 12;
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string result;
  while (!path.empty()) {
    const std::size_t digits = std::min(path.find_first_not_of(kHex), path.size());
    result += path.substr(0, digits == kDigits ? kShownDigits : digits);
    path.remove_prefix(digits);
    const std::size_t others = std::min(path.find_first_of(kHex), path.size());
    result += path.substr(0, others);
    path.remove_prefix(others);
  }
  return result;
}

void add(const cow::Measurement& measurement, const cow::ProcessCopies& process,
         const cow::ForkCopies& copies, RunningMetrics& sum) {
  ++sum.processes;
  if (process.pss) ++sum.pss_processes;
  for (std::size_t i = 0; i < cow::kFigures.size(); ++i) {
    const cow::Figure& figure = cow::kFigures.at(i);
    if (figure.metric.empty()) continue;
    if (const auto value = figure.of(measurement, process, copies))
      add_to(sum.figures.at(i), static_cast<std::uint64_t>(*value));
  }
}

bool is_used(const CommandMetrics& command) { return command.running.processes > 0; }
bool is_used(const ObjectMetrics& /*object*/) { return false; }

}  // namespace

std::string cgroup_of(pid_t pid) { return printable(cow::ProcFiles().cgroup(pid)); }

MetricsSums::MetricsSums(std::size_t most_series, std::function<std::string(pid_t)> cgroup)
    : most_series_(most_series), cgroup_(std::move(cgroup)) {
  other_command_.comm = other_command_.place.cgroup = kOther;
  other_object_ = {kOther, {kOther, "", ""}, kOther, kOther, 0};
}

template <class Key, class Sum>
Sum& MetricsSums::series(std::map<Key, Series<Sum>>& all, const Key& key, Sum& other,
                         std::uint64_t now_ns) {
  auto found = all.find(key);
  if (found == all.end()) {
    if (all.size() >= most_series_) {
      const auto oldest =
          std::ranges::min_element(all, {}, [](const auto& each) { return each.second.used_ns; });
      const bool can_go = oldest != all.end() && !is_used(oldest->second.sum) &&
                          now_ns > oldest->second.used_ns + kUnusedNs;
      if (!can_go) return other;
      all.erase(oldest);
    }
    found = all.emplace(key, Series<Sum>{}).first;
  }
  found->second.used_ns = now_ns;
  return found->second.sum;
}

void MetricsSums::look_up_cgroup(const cow::ProcessCopies& process, Known& known,
                                 std::uint64_t now_ns) const {
  const bool is_due = known.cgroup_read_ns == 0 || known.comm != process.comm ||
                      now_ns > known.cgroup_read_ns + kBetweenCgroupsNs;
  if (is_due && process.alive) {
    known.cgroup_read_ns = now_ns;
    if (const std::string cgroup = cgroup_(process.pid); !cgroup.empty()) {
      Container container = container_of(cgroup);
      known.place = {with_short_ids(cgroup), std::move(container.id), std::move(container.pod)};
    }
  }
  if (!known.place.cgroup.empty()) return;
  // It ended before its cgroup was read: its parent's is the best guess.
  constexpr auto kLatest = std::numeric_limits<std::uint64_t>::max();
  auto parent = known_.upper_bound({process.ppid, kLatest});
  if (parent == known_.begin()) return;
  --parent;
  if (parent->first.pid == process.ppid) known.place = parent->second.place;
}

void MetricsSums::add(const cow::Measurement& measurement, const cow::ProcessCopies& process,
                      const cow::ForkCopies& copies, std::uint64_t now_ns) {
  Known& known = known_[process.id()];
  known.round = round_;
  look_up_cgroup(process, known, now_ns);
  known.comm = process.comm;
  const std::string comm = printable(process.comm);
  CommandMetrics& sum = series(commands_, Name{comm, known.place.cgroup}, other_command_, now_ns);
  if (&sum != &other_command_) {
    sum.comm = comm;
    sum.place = known.place;
  }
  if (copies.copied_pages) add_to(sum.copied_pages, grow(known.copied_pages, *copies.copied_pages));
  for (std::size_t i = 0; i < cow::kCounts.size(); ++i) {
    const std::optional<std::uint64_t>& pages = process.*cow::kCounts.at(i).count;
    if (pages) add_to(sum.pages.at(i), grow(known.pages.at(i), *pages));
  }
  sum.oom_kills += grow(known.oom_kills, process.out_of_memory ? 1 : 0);
  if (process.fork_costs) {
    if (!sum.fork_costs) sum.fork_costs.emplace();
    sum.fork_costs->add(process.fork_costs->since(known.fork_costs));
    known.fork_costs = *process.fork_costs;
  }
  if (process.alive) cowtop::add(measurement, process, copies, sum.running);
  if (!process.objects) return;
  // The copied pages by arena and name.  Objects without a name are added up.
  std::map<std::pair<std::string, std::string>, std::uint64_t> objects;
  for (const cow::ObjectCopies& object : *process.objects)
    objects[{object.arena, object.name}] += object.copied_pages;
  for (const auto& [any, pages] : objects) {
    if (pages == 0) continue;
    // A process may publish ever new names.
    const bool is_kept = known.objects.size() < kMostNames || known.objects.contains(any);
    const auto object = is_kept ? any : std::pair<std::string, std::string>(kOther, kOther);
    const std::string arena = printable(object.first);
    const std::string name = printable(object.second);
    ObjectMetrics& its_sum =
        series(objects_, ObjectName{comm, known.place.cgroup, arena, name}, other_object_, now_ns);
    if (&its_sum != &other_object_)
      its_sum = {comm, known.place, arena, name, its_sum.copied_pages};
    its_sum.copied_pages += grow(known.objects[object], pages);
  }
}

void MetricsSums::add(const cow::Measurement& measurement,
                      const std::vector<cow::ProcessCopies>& ended) {
  ++round_;
  for (auto& [name, command] : commands_) command.sum.running = {};
  other_command_.running = {};
  const std::uint64_t now = monotonic_ns();
  // With those that ended, since a parent's copies depend on its children.
  cow::Measurement all = measurement;
  all.processes.insert(all.processes.end(), ended.begin(), ended.end());
  if (!std::ranges::is_sorted(all.processes, {}, &cow::ProcessCopies::start_ns))
    std::ranges::stable_sort(all.processes, {}, &cow::ProcessCopies::start_ns);
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(all);
  for (std::size_t i = 0; i < copies.size(); ++i) add(all, all.processes[i], copies[i], now);
  std::erase_if(known_, [&](const auto& entry) { return entry.second.round != round_; });
  for (const cow::ProcessCopies& process : ended) known_.erase(process.id());

  totals_.backend = measurement.backend;
  totals_.exact = measurement.exact;
  // Some are found again later, but a counter does not fall.
  totals_.lost_events = std::max(totals_.lost_events, measurement.lost_events);
  if (measurement.not_seen) totals_.not_seen = measurement.not_seen->at_least;
  if (measurement.exact) {
    const auto events = grow(probe_events_, measurement.overhead.events);
    const double ns = measurement.overhead.ns_per_event.value_or(0);
    totals_.probe_cpu_s = totals_.probe_cpu_s.value_or(0) +
                          static_cast<double>(events) * ns / static_cast<double>(kSecondNs);
  }
  totals_.sampled_s =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Metrics MetricsSums::metrics() const {
  Metrics result = totals_;
  for (const auto& [name, command] : commands_) result.commands.push_back(command.sum);
  for (const auto& [name, object] : objects_) result.objects.push_back(object.sum);
  const bool any_other = other_command_.running.processes > 0 || other_command_.copied_pages ||
                         std::ranges::any_of(other_command_.pages,
                                             [](const auto& pages) { return pages.has_value(); });
  if (any_other) result.commands.push_back(other_command_);
  if (other_object_.copied_pages > 0) result.objects.push_back(other_object_);
  return result;
}

}  // namespace cowshed::cowtop
