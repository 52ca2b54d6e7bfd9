#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <sys/types.h>
#include <tuple>
#include <utility>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/serve/metrics.h>

namespace cowshed::cowtop {

// The path in /proc/PID/cgroup (v2); empty: not known.
std::string cgroup_of(pid_t pid);

// Adds up what each process has done since it was last looked at, under the name and the cgroup
// that it has by then.  No sum ever falls: not when a process ends, nor when it changes its name.
//
// Takes no more memory than the processes that are alive and `most_series` names with their cgroups
// need, and as many objects.  Further ones are summed as "other"; but one that nobody alive has,
// and that nothing was added to for an hour, makes room for a new one: its series ends.
class MetricsSums {
 public:
  explicit MetricsSums(std::size_t most_series,
                       std::function<std::string(pid_t)> cgroup = cgroup_of);

  // After each sample.  `ended`: who is no longer in `measurement`.
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
  // Of a process: what is in the sums already.
  struct Known {
    std::string cgroup;
    std::uint64_t cgroup_read_ns = 0;
    std::string comm;
    std::uint64_t copied_pages = 0;
    std::array<std::uint64_t, kPageKinds.size()> pages = {};
    std::map<std::pair<std::string, std::string>, std::uint64_t> objects;  // by arena and name
    std::uint64_t round = 0;
  };

  void add(const cow::ProcessCopies& process, std::uint64_t now_ns);
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
