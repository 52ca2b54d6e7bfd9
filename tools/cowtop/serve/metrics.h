#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/figures.h>

// The metrics of cowtop serve at one moment.
namespace cowshed::cowtop {

// Where processes run.  Empty: unknown, or none.
struct Place {
  std::string cgroup;     // its path, with the first 12 digits of each container's ID
  std::string container;  // as Container has them
  std::string pod;
};

// The memory of running processes.  nullopt: unknown.
struct RunningMetrics {
  std::uint64_t processes = 0;
  std::uint64_t pss_processes = 0;                                         // whose PSS was read
  std::array<std::optional<std::uint64_t>, cow::kFigures.size()> figures;  // those with a metric
};

// The metrics of all processes of one name in one cgroup.  Counts include ended processes. nullopt:
// unknown.
struct CommandMetrics {
  std::string comm;
  Place place;
  std::optional<std::uint64_t> copied_pages;
  std::array<std::optional<std::uint64_t>, cow::kCounts.size()> pages;  // those with a kind
  std::optional<ForkCosts> fork_costs;
  std::uint64_t oom_kills = 0;  // or perhaps, by the sampled backend
  RunningMetrics running;
};

// The copies of a published object.
struct ObjectMetrics {
  std::string comm;
  Place place;
  std::string arena;
  std::string object;
  std::uint64_t copied_pages = 0;
};

struct Metrics {
  std::string backend;
  bool exact = false;
  std::vector<CommandMetrics> commands;
  std::vector<ObjectMetrics> objects;
  std::optional<std::uint64_t> lost_events;
  std::optional<std::uint64_t> not_seen;
  std::optional<double> probe_cpu_s;  // CPU time of the probes in measured processes
  double sampled_s = 0;               // since 1970
  std::shared_ptr<const cow::Measurement> latest = nullptr;
};

}  // namespace cowshed::cowtop
