#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <cowshed/tests/support/conditions.h>

namespace cowshed::test {

// What a kind of ground_truth_subject does for each of its N units, by class.
struct PerUnit {
  std::uint64_t copied_anon = 0;
  std::uint64_t copied_file = 0;
  std::uint64_t copied_merged = 0;  // part of both
  std::uint64_t reused = 0;
  std::uint64_t zero_page_writes = 0;
  std::uint64_t zero_filled = 0;
  std::uint64_t zero_filled_pages = 0;
  std::uint64_t write_notify = 0;
  std::uint64_t failed = 0;
  std::uint64_t other = 0;
  std::uint64_t huge_splits = 0;
  std::uint64_t collapsed_pages = 0;
  std::uint64_t copied_hugetlb = 0;
  std::optional<std::uint64_t> at_fork = std::nullopt;  // of the pages that it has from its parent
  std::uint64_t wpcopy = 0;                             // what taskstats should say

  std::uint64_t not_wp = 0;    // of these, decided elsewhere than in do_wp_page: large pages
  std::uint64_t extra_wp = 0;  // entries of do_wp_page that decide nothing: userfaultfd
  // Of copied_file and copied_hugetlb, kept by arena or file.  nullopt: all of files of 1 MiB or
  // more.
  std::optional<std::uint64_t> arena_pages = 0;

  // How often the kernel should come through do_wp_page: whatever the outcome.
  std::uint64_t wp_faults() const { return wpcopy + reused + write_notify + extra_wp - not_wp; }
};

struct Truth {
  const char* kind;
  long most;  // units worth the time and the space
  PerUnit per_unit;
  Needs needs = Needs::nothing;
  // Whether the kernel reuses or copies what nobody else uses depends on its version.
  bool either = false;
};

inline const std::vector<Truth>& truths() {
  static const std::vector<Truth> all = {
      {"anon_copied", 100'000, {.copied_anon = 1, .at_fork = 1, .wpcopy = 1}},
      // It fills the pages itself before it forks.
      Truth("parent_copies", 100'000,
            {.copied_anon = 1, .zero_filled = 1, .zero_filled_pages = 1, .wpcopy = 1}),
      {"reused", 100'000, {.reused = 1}},
      {"reused_then_page_cache", 10'000, {.reused = 1}},
      {"kernel_reused_then_page_cache", 10'000, {.reused = 1}},
      {"kernel_reused_in_cold_read", 2'000, {.reused = 1}},
      Truth("kernel_reused_then_unshared", 2'000,
            {.reused = 2, .zero_filled = 4, .zero_filled_pages = 4, .wpcopy = 2}),
      {"zero_page_write", 100'000, {.zero_page_writes = 1, .wpcopy = 1}, Needs::zero_page},
      Truth("zero_page_write_between_reads", 10'000, {.zero_page_writes = 1, .wpcopy = 1},
            Needs::zero_page),
      {"first_touch", 100'000, {.zero_filled = 1, .zero_filled_pages = 1}},
      {"shared_first_touch", 100'000, {.zero_filled = 1, .zero_filled_pages = 1}},
      Truth("file_read_then_write", 100'000,
            {.copied_file = 1, .wpcopy = 1, .arena_pages = std::nullopt}),
      {"file_never_read", 100'000, {.copied_file = 1, .arena_pages = std::nullopt}},
      {"file_over_anonymous",
       10'000,
       {.copied_file = 1, .zero_filled = 1, .zero_filled_pages = 1, .arena_pages = std::nullopt}},
      {"disk_file_never_read", 2'000, {.copied_file = 1, .arena_pages = std::nullopt}},
      {"arena_copied", 100'000, {.copied_file = 1, .wpcopy = 1, .arena_pages = 1}},
      {"write_notify", 2'000, {.write_notify = 1}},
      {"closed_to_writes", 10'000, {.zero_filled = 1, .zero_filled_pages = 1, .failed = 1}},
      {"closed_to_all", 10'000, {.zero_filled = 1, .zero_filled_pages = 1, .failed = 1}},
      {"kernel_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      {"many_mappings", 30'000, {.copied_anon = 1, .wpcopy = 1}},
      {"thread_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      // By then taskstats has closed the thread's account.
      {"cleared_at_exit", 2'000, {.copied_anon = 1, .extra_wp = 1}},
      {"grandchild_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      {"vfork_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      {"clone_copied", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      {"in_pid_namespace", 100'000, {.copied_anon = 1, .wpcopy = 1}},
      {"in_time_namespace", 10'000, {.copied_anon = 1, .wpcopy = 1}, Needs::time_namespace},
      Truth("exec_between", 10'000,
            {.copied_anon = 2, .zero_filled = 1, .zero_filled_pages = 1, .wpcopy = 2}),
      {"reused_then_read_fault", 10'000, {.reused = 1}},
      {"reused_by_string_copy", 10'000, {.reused = 1}},
      {"reused_after_call", 10'000, {.reused = 1}},
      {"image_never_read", 2'000, {.copied_file = 1, .arena_pages = 1}},
      {"shared_file_present", 10'000, {.other = 1}},
      {"shared_disk_file_never_read", 2'000, {.other = 1}},
      {"wiped_on_fork", 10'000, {.zero_filled = 1, .zero_filled_pages = 1, .at_fork = 0}},
      {"kept_from_child", 10'000, {.zero_filled = 1, .zero_filled_pages = 1}},
      Truth("not_inherited", 10'000,
            {.zero_filled = 1, .zero_filled_pages = 1, .failed = 1, .at_fork = 0}),
      {"stack_grows", 1'000, {.zero_filled = 1, .zero_filled_pages = 1}},
      {"closed_and_shared", 100'000, {.copied_anon = 1, .failed = 1, .wpcopy = 1}},
      {"kernel_address", 10'000, {.failed = 1}},
      {"beyond_disk_file", 2'000, {.copied_file = 1, .failed = 1, .arena_pages = std::nullopt}},
      {"beyond_memory_file", 10'000, {.copied_file = 1, .failed = 1, .arena_pages = std::nullopt}},
      {"beyond_shared_disk_file", 10'000, {.failed = 1}},
      {"beyond_shared_memory_file", 10'000, {.failed = 1}},
      Truth("guarded", 10'000, {.zero_filled = 1, .zero_filled_pages = 1, .failed = 1},
            Needs::guard_pages),
      // With faults disabled it fails, and the kernel's own page walk then copies.
      {"futex_operation", 10'000, {.failed = 1, .wpcopy = 1}},
      // Before 6.2 (6.12 does not) the answer leaves a page that the same fault then has to reuse.
      Truth("write_protected_by_user", 10'000,
            {.zero_filled = 1,
             .zero_filled_pages = 1,
             .other = 1,
             .extra_wp = kernel_is_before(6, 2) ? 2U : 1U}),
      {"missing_for_user", 10'000, {.other = 1}},
      {"present_for_user", 10'000, {.copied_file = 1, .arena_pages = std::nullopt}},
      Truth("split_while_waiting", 20,
            {.copied_anon = 2,
             .zero_filled = 2,
             .zero_filled_pages = 513,
             .huge_splits = 1,
             .wpcopy = 2,
             .extra_wp = 1},
            Needs::huge_pages),
      {"huge_first_touch", 20, {.zero_filled = 1, .zero_filled_pages = 512}, Needs::huge_pages},
      {"huge_shared", 20, {.copied_anon = 512, .huge_splits = 1, .wpcopy = 512}, Needs::huge_pages},
      Truth("huge_shared_one_byte", 20, {.copied_anon = 1, .huge_splits = 1, .wpcopy = 1},
            Needs::huge_pages),
      {"huge_last_sharer", 20, {.reused = 1, .not_wp = 1}, Needs::huge_pages},
      // Newer kernels fill a huge page instead (do_huge_zero_wp_pmd, mm/huge_memory.c).
      Truth("huge_zero_page", 20,
            {.zero_page_writes = 1, .wpcopy = kernel_is_before(6, 13) ? 1U : 0U},
            Needs::huge_zero_page),
      {"folio_first_touch", 1'000, {.zero_filled = 1, .zero_filled_pages = 16}, Needs::folios},
      {"folio_shared", 1'000, {.copied_anon = 16, .wpcopy = 16}, Needs::folios},
      {"folio_last_sharer", 1'000, {.reused = 16}, Needs::folios, true},
      // taskstats counts the first touch and the reuse, too (hugetlb_wp, mm/hugetlb.c).
      Truth("reserved_first_touch", 20,
            {.zero_filled_pages = 512, .other = 1, .wpcopy = 1, .not_wp = 1},
            Needs::reserved_pages),
      Truth("reserved_shared", 20,
            {.other = 1, .copied_hugetlb = 512, .at_fork = 512, .wpcopy = 1, .not_wp = 1},
            Needs::reserved_pages),
      Truth("reserved_kernel_copied", 20,
            {.other = 1, .copied_hugetlb = 512, .at_fork = 512, .wpcopy = 1, .not_wp = 1},
            Needs::reserved_pages),
      {"reserved_last_sharer", 20, {.other = 1, .wpcopy = 1, .not_wp = 1}, Needs::reserved_pages},
      Truth("reserved_file_never_read", 20,
            {.other = 1, .copied_hugetlb = 512, .wpcopy = 1, .not_wp = 1, .arena_pages = 512},
            Needs::reserved_pages),
      Truth("reserved_file_read", 20,
            {.other = 1, .copied_hugetlb = 512, .wpcopy = 1, .not_wp = 1, .arena_pages = 512},
            Needs::reserved_pages),
      Truth("merged", 1'000,
            {.copied_anon = 1,
             .copied_merged = 1,
             .zero_filled = 2,
             .zero_filled_pages = 2,
             .wpcopy = 1},
            Needs::merging),
      {"swapped_out", 1'000, {.zero_filled = 1, .zero_filled_pages = 1, .other = 1}, Needs::swap},
      {"swapped_out_and_shared", 1'000, {.copied_anon = 1, .wpcopy = 1}, Needs::swap},
      Truth("file_copy_swapped_out", 1'000,
            {.copied_file = 1, .other = 2, .arena_pages = std::nullopt}, Needs::swap),
      Truth("swapped_out", 1'000, {.zero_filled = 1, .zero_filled_pages = 1, .other = 1},
            Needs::compressed_swap),
      {"swapped_out_and_shared", 1'000, {.copied_anon = 1, .wpcopy = 1}, Needs::compressed_swap},
      Truth("file_copy_swapped_out", 1'000,
            {.copied_file = 1, .other = 2, .arena_pages = std::nullopt}, Needs::compressed_swap),
      {"under_pressure", 2'000, {.copied_anon = 1, .wpcopy = 1}, Needs::memory_limit},
      {"ring_copied", 300, {.copied_anon = 1, .wpcopy = 1}, Needs::io_uring},
      {"collapsed", 20, {.copied_anon = 1, .collapsed_pages = 511, .wpcopy = 1}, Needs::huge_pages},
      // Copied by the kernel's own page walk: what the probes do not see, and taskstats does.
      {"populated", 1'000, {.wpcopy = 1}},
  };
  return all;
}

}  // namespace cowshed::test
