#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/language.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/analysis/process_groups.h>
#include <cowshed/tools/cowtop/analysis/shares.h>

// The answer to "how much was copied, by whom, of what and why" of one measurement.
namespace cowshed::cowtop {

// What a parent copied while one child of its shared its memory: a database's save, say.
struct ParentCopies {
  pid_t child = 0;
  pid_t parent = 0;
  double watched_s = 0;  // of the child's life
  std::uint64_t copied_bytes = 0;
  std::optional<std::uint64_t> shared_bytes;  // at the fork, or when the measurement began
  bool is_older = false;  // than the measurement: these are the copies since then
};

struct Summary : Shares {
  // Of the processes with most copies and new memory; native where they have none.
  cow::Language language = cow::Language::native;
  std::vector<ProcessGroup> groups;  // the most copied first
  std::uint64_t processes = 0;       // all
  std::uint64_t alive = 0;           // of these
  std::uint64_t left_behind = 0;     // alive after their root has ended
  std::uint64_t sharers = 0;         // children that share memory with their parent
  std::uint64_t older = 0;           // of these, forked before the measurement began
  std::uint64_t older_bytes = 0;     // that the older ones had alone before it began
  // Of all groups, but for less than 1 MiB each of children that executed a program.
  std::uint64_t copied_bytes = 0;
  std::uint64_t before_exec_bytes = 0;  // by these children, before they executed programs
  std::uint64_t ran = 0;                // their number
  std::uint64_t exit_bytes = 0;         // copied while programs ended; in none of the other figures
  std::uint64_t file_bytes = 0;         // that the sharers copied of files, which no fork shared
  // Estimated, of copied_bytes and file_bytes: while libraries were relocated.
  std::uint64_t relocated_bytes = 0;
  // The highest that PSS may have been before programs ended; 0: PSS is not known.
  std::uint64_t shared_memory_bytes = 0;  // at the peak, each page once; little is 0
  std::string shared_memory_by;           // "3 x worker"; empty: not known
  bool is_shared_memory_least = false;    // more was made than that
  std::uint64_t most_peak_bytes = 0;
  // The processes that lived at the same time; as many as there are, if it is not known.
  std::uint64_t most_at_once = UINT64_MAX;
  bool is_peak_known = false;      // PSS was read there, to a tenth
  bool is_peak_bounded = false;    // `most_peak_bytes` is the most
  std::uint64_t shared_bytes = 0;  // sum over the sharers, at their forks
  std::uint64_t new_bytes = 0;     // of all groups, as far as it is known
  std::uint64_t new_unknown = 0;   // children whose new memory is not; without the older ones
  std::uint64_t holders = 0;       // of all groups
  Sizes held;
  // Of Python, made immortal by cowshed.freeze().
  std::uint64_t frozen_objects = 0;
  std::uint64_t frozen_bytes = 0;
  bool is_frozen_before_forks = false;  // in a process that then forked
  bool is_frozen_in_part = false;       // there, as freeze() knew: it missed what some objects hold
  bool is_all_known = true;             // what the sharers copied
  bool are_parents_known = true;        // what those that forked them copied
  // Those of at least 1 MiB, the most first; none of a parent whose children lived at the same
  // time.
  std::vector<ParentCopies> parents;
  // Too little to care: less than 1 MiB, or 1 % of what is shared; or less than 1 MiB by each child
  // and for each fork, and by those that lived at once less than a fifth of what all held.
  bool is_little = true;

  // Whether what processes hold beside copies is worth a word, and whether it is more.
  bool has_new_memory() const;
  // Those that hold most of it; null: none holds any.
  const ProcessGroup* largest_holders() const;
  // The line of code that made most of the new memory, if the group has most of that; or null.
  const Share* line_of(const ProcessGroup& group) const;
  // The children that share the most: no shell that started them.  Null: none share anything.
  const ProcessGroup* most_shared() const;
  bool is_mostly_new() const { return has_new_memory() && held.sum > copied_bytes; }
  // Whether the children that ran programs copied more than the few pages that any does before.
  bool copy_before_exec() const;
};

// `each_process`: a group for each process.
Summary summarize(const cow::Measurement& measurement, bool each_process = false);

}  // namespace cowshed::cowtop
