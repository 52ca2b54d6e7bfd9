#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <cowshed/cow/measurement.h>

// Which copies a fork caused.  A process makes others too: first writes to private pages of a
// file, and all that a program copies after an exec.  ProcessCopies::all_copied_pages() counts
// every copy.  Reports, budgets, comparisons, metrics and JSON call the figure below COPIED.
namespace cowshed::cow {

// Reports name ForkCopies::unfaulted_bytes so, beside the causes that causes/new_memory.h names.
inline constexpr std::string_view kNoWriteFault = "no write fault (mlock, MAP_POPULATE, O_DIRECT)";

// Of one process, or of a sum of several.
struct ForkCopies {
  // COPIED: copies of pages that a fork shared, with the process's parent or with its children.
  // Excluded: first writes to private pages of files, exit_pages, copies of pages that KSM had
  // merged, and copies after an exec of pages that no fork of the new program shared.  Before an
  // exec, first writes to files are included, because the counts do not tell them apart.  They hide
  // as many copies after it.  Copies by a child in the process's memory (vfork) are the process's,
  // until the child executes a program.  nullopt: not known.
  std::optional<std::uint64_t> copied_pages;
  // Copies while the program ended, as far as samples tell.  They cost time, but hardly memory.
  std::uint64_t exit_pages = 0;
  // The part of COPIED that the process's own samples explain: without copies by children in its
  // memory.  Of such a child: its part of the COPIED of the process whose memory it is.
  std::uint64_t written_pages = 0;
  // SHARED: what the process shared with its parent at its fork.  For a process that is older than
  // the measurement: what it shared when that began.  nullopt: not known, and after an exec, which
  // ends the sharing.
  std::optional<std::uint64_t> shared_bytes;
  // The part of it that the process has neither copied nor given back, with copies that it has
  // undone.  nullopt also if some copies may be of memory that it shares with its own children, or
  // its parent with others.
  std::optional<std::uint64_t> still_shared_bytes;

  // NEW: what a process has beside its copies and what it got at its fork, since its last exec, or
  // since the measurement began; after its end, the most that it had, as far as samples tell.  Not
  // what a child of its own got, but for a child that goes on.  A page that it got at its fork is
  // never new, even if it is the last process that maps the page.  nullopt: not known.
  std::optional<std::uint64_t> new_bytes;
  // The part of it that no write fault made, as mlock(2) does, so that no sample explains it.  0
  // also if the counts may be off by it: below 1 MiB or a tenth, or if events were lost.
  std::uint64_t unfaulted_bytes = 0;

  // OWN: anonymous memory that no other process maps.  While the process runs, as last looked at;
  // else the most that it had at one time, as far as is known.  nullopt: not known.
  std::optional<std::uint64_t> own_bytes;
  // The most of it that was seen.
  std::optional<std::uint64_t> most_own_bytes;

  // Children that go on with the process's memory, without an exec.
  std::uint64_t forks = 0;
  // The most that one of them shared at its fork, and the anonymous part of that.
  std::optional<std::uint64_t> most_shared_with_child;
  std::uint64_t most_given_bytes = 0;
  // What the process copied while they lived: at most, if several lived at the same time.
  std::uint64_t copied_for_children_bytes = 0;
  // Whether no child of its parent lived at the same time as another.
  bool is_only_child = false;

  std::optional<std::uint64_t> copied_bytes() const {
    return copied_pages ? std::optional(*copied_pages * kPageSize) : std::nullopt;
  }
  std::uint64_t exit_bytes() const { return exit_pages * kPageSize; }
  // COPIED divided by SHARED.  Above 1 if further forks shared pages again, which were copied
  // again. nullopt if either is not known, or nothing was shared.
  std::optional<double> copied_ratio() const {
    const auto copied = copied_bytes();
    if (!copied || shared_bytes.value_or(0) == 0) return std::nullopt;
    return static_cast<double>(*copied) / static_cast<double>(*shared_bytes);
  }
  std::optional<double> still_shared_ratio() const {
    if (!still_shared_bytes || shared_bytes.value_or(0) == 0) return std::nullopt;
    return static_cast<double>(*still_shared_bytes) / static_cast<double>(*shared_bytes);
  }
};

// Returns the figures of each process of the measurement, in its order.
std::vector<ForkCopies> fork_copies(const Measurement& measurement);

// A process and all its descendants, ended ones included.
struct Subtree {
  std::uint64_t processes = 1;
  // The sum of the known COPIED; nullopt: none is known.
  std::optional<std::uint64_t> copied_pages;
};

// Returns the subtree of each process.
std::vector<Subtree> subtrees(const Measurement& measurement);

// What it wrote first to private pages of files, which makes anonymous memory.
std::uint64_t first_write_bytes(const ProcessCopies& process);

// What its private mappings of files of data shared with the files, but not what a fork shared.
std::uint64_t file_bytes(const ProcessCopies& process);

// What a process has beside its copies and what it got, also if a child shares it, and the part of
// that that it still had at its end, if that is known.
std::optional<std::uint64_t> new_bytes(const ProcessCopies& process);
std::optional<std::uint64_t> new_bytes_at_end(const ProcessCopies& process);

// Whether a child goes on with its parent's memory.
bool goes_on(const ProcessCopies& process);

// Whether the process has copied so much since its last memory sample that its shared and copied
// memory exceed the memory at its fork.
bool is_memory_stale(const ProcessCopies& process);

// Whether a child was forked before the measurement began, so that nobody knows what it, or its
// parent for it, copied until then.
bool is_older(const ProcessCopies& process);

// Whether the process, or the program that it runs, began before the measurement.
bool ran_before(const ProcessCopies& process);

}  // namespace cowshed::cow
