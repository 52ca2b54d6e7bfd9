#pragma once

#include <ostream>
#include <string>
#include <vector>

#include <cowshed/probes/counts.h>

namespace cowshed::test {

// What a kind of ground_truth_subject does for each of its N units, by class.
struct PerUnit {
  std::uint64_t copied_anon = 0;
  std::uint64_t copied_file = 0;
  std::uint64_t reused = 0;
  std::uint64_t zero_page_writes = 0;
  std::uint64_t zero_filled = 0;
  std::uint64_t zero_filled_pages = 0;
  std::uint64_t write_notify = 0;
  std::uint64_t failed = 0;
  std::uint64_t huge_splits = 0;
  std::uint64_t wpcopy = 0;  // what taskstats should say

  // How often the kernel should come through do_wp_page: whatever the outcome.
  std::uint64_t wp_faults() const { return wpcopy + reused + write_notify; }
};

struct Truth {
  const char* kind;
  long most;  // units worth the time and the space
  PerUnit per_unit;
};

// For GoogleTest, which wants this name.  NOLINTNEXTLINE(readability-identifier-naming)
inline void PrintTo(const Truth& truth, std::ostream* out) { *out << truth.kind; }

inline const std::vector<Truth>& truths() {
  static const std::vector<Truth> all = {
      {"anon_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      // It fills the pages itself before it forks.
      {"parent_copies",
       100'000,
       {.copied_anon = 1, .zero_filled = 1, .zero_filled_pages = 1, .wpcopy = 1}},
      {"reused", 100'000, {.reused = 1}},
      {"reused_then_page_cache", 10'000, {.reused = 1}},
      {"kernel_reused_then_page_cache", 10'000, {.reused = 1}},
      {"kernel_reused_in_cold_read", 2'000, {.reused = 1}},
      {"kernel_reused_then_unshared",
       2'000,
       {.reused = 2, .zero_filled = 4, .zero_filled_pages = 4, .wpcopy = 2}},
      {"zero_page_write", 100'000, {.zero_page_writes = 1, .wpcopy = 1}},
      {"first_touch", 100'000, {.zero_filled = 1, .zero_filled_pages = 1}},
      {"shared_first_touch", 100'000, {.zero_filled = 1, .zero_filled_pages = 1}},
      {"file_read_then_write", 100'000, {.copied_file = 1, .wpcopy = 1}},
      {"file_never_read", 100'000, {.copied_file = 1}},
      {"disk_file_never_read", 2'000, {.copied_file = 1}},
      {"arena_copied", 100'000, {.copied_file = 1, .wpcopy = 1}},
      {"write_notify", 2'000, {.write_notify = 1}},
      {"closed_to_writes", 10'000, {.zero_filled = 1, .zero_filled_pages = 1, .failed = 1}},
      {"closed_to_all", 10'000, {.zero_filled = 1, .zero_filled_pages = 1, .failed = 1}},
      {"kernel_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      {"many_mappings", 30'000, {.copied_anon = 1, .wpcopy = 1}},
      {"thread_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      {"grandchild_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      {"vfork_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      // Copied by the kernel's own page walk: what the probes do not see, and taskstats does.
      {"populated", 1'000, {.wpcopy = 1}},
  };
  return all;
}

}  // namespace cowshed::test
