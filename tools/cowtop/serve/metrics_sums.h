#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <sys/types.h>
#include <tuple>
#include <utility>
#include <vector>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/serve/metrics.h>

namespace cowshed::cowtop {

// Returns the path in /proc/PID/cgroup (v2); empty: unknown.
std::string cgroup_of(pid_t pid);

// Adds the new copies of each process to the sum of its current name and cgroup.  A sum never
// falls, even if a process ends or changes its name.
//
// Memory is limited to the living processes, `most_series` names with cgroups, and as many objects.
// Further ones count as "other".  A series without a living process and without a change for an
// hour ends if a new one needs its room.
class MetricsSums {
 public:
  explicit MetricsSums(std::size_t most_series,
                       std::function<std::string(pid_t)> cgroup = cgroup_of);

  // Call it after each sample.  `ended` are processes that left `measurement`.
  void add(const cow::Measurement& measurement, const std::vector<cow::ProcessCopies>& ended);

  Metrics metrics() const;

 private:
  using Name = std::pair<std::string, std::string>;  // comm and cgroup
  using ObjectName = std::tuple<std::string, std::string, std::string, std::string>;
  template <class Sum>
  struct Series {
    Sum sum;
    std::uint64_t used_ns = 0;
  };
  // The part of a process that is in the sums.
  struct Known {
    Place place;
    std::uint64_t cgroup_read_ns = 0;
    std::string comm;
    std::uint64_t copied_pages = 0;
    std::array<std::uint64_t, cow::kCounts.size()> pages = {};
    ForkCosts fork_costs;
    std::uint64_t oom_kills = 0;
    std::map<std::pair<std::string, std::string>, std::uint64_t> objects;  // by arena and name
    std::uint64_t round = 0;
  };

  void add(const cow::Measurement& measurement, const cow::ProcessCopies& process,
           const cow::ForkCopies& copies, std::uint64_t now_ns);
  void look_up_cgroup(const cow::ProcessCopies& process, Known& known, std::uint64_t now_ns) const;
  template <class Key, class Sum>
  Sum& series(std::map<Key, Series<Sum>>& all, const Key& key, Sum& other, std::uint64_t now_ns);

  std::size_t most_series_;
  std::function<std::string(pid_t)> cgroup_;
  std::map<Name, Series<CommandMetrics>> commands_;
  std::map<ObjectName, Series<ObjectMetrics>> objects_;
  CommandMetrics other_command_;
  ObjectMetrics other_object_;
  std::map<cow::ProcessId, Known> known_;
  std::uint64_t round_ = 0;
  std::uint64_t probe_events_ = 0;
  Metrics totals_;
};

}  // namespace cowshed::cowtop
