#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/measurement.h>

// The metrics of cowtop serve at one moment.
namespace cowshed::cowtop {

// A class of write faults, and its count in ProcessCopies.
struct PageKind {
  const char* name;
  std::optional<std::uint64_t> cow::ProcessCopies::* pages;
};
inline constexpr std::array kPageKinds = {
    PageKind{"copied_anon", &cow::ProcessCopies::copied_anon_pages},
    PageKind{"copied_file", &cow::ProcessCopies::copied_file_pages},
    PageKind{"reused", &cow::ProcessCopies::reused_pages},
    PageKind{"zero_page", &cow::ProcessCopies::zero_page_writes},
    PageKind{"zero_filled", &cow::ProcessCopies::zero_filled_pages},
    PageKind{"write_notify", &cow::ProcessCopies::write_notify_faults},
    PageKind{"failed", &cow::ProcessCopies::failed_faults},
    PageKind{"other", &cow::ProcessCopies::other_faults},
};

// The metrics of all processes of one name in one cgroup.  Counts include ended processes. nullopt:
// unknown.
struct CommandMetrics {
  std::string comm;
  std::string cgroup;  // empty: unknown
  std::optional<std::uint64_t> copied_pages;
  std::array<std::optional<std::uint64_t>, kPageKinds.size()> pages;
  // Only running processes:
  std::uint64_t processes = 0;
  std::optional<std::uint64_t> shared_bytes;
  std::optional<std::uint64_t> private_bytes;
};

// The copies of a published object.
struct ObjectMetrics {
  std::string comm;
  std::string cgroup;
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
};

}  // namespace cowshed::cowtop
