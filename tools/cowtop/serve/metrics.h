#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/measurement.h>

// What cowtop serve exports, at one moment.
namespace cowshed::cowtop {

// What a write fault did, as ProcessCopies counts it in pages.
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

// Of all processes of one name in one cgroup, the ended ones included where it is a count.  What
// the backend cannot know is nullopt.
struct CommandMetrics {
  std::string comm;
  std::string cgroup;  // empty: not known
  std::optional<std::uint64_t> copied_pages;
  std::array<std::optional<std::uint64_t>, kPageKinds.size()> pages;
  // Of those that are running:
  std::uint64_t processes = 0;
  std::optional<std::uint64_t> shared_bytes;
  std::optional<std::uint64_t> private_bytes;
};

// Of a published object.
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
  std::optional<double> probe_cpu_s;  // that the probes took of the measured processes' CPU time
  double sampled_s = 0;               // since 1970
};

}  // namespace cowshed::cowtop
