#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/probes/count_list.h>

// The counts of the probes.  All types are values and may cross threads.  A page is 4 KiB.  Times
// are CLOCK_MONOTONIC nanoseconds.
namespace cowshed {

// Copies by one process in one frozen arena, the memfd "memfd:cowshed:NAME"; or in private mappings
// of a file of 1 MiB or more that is neither a program nor a library: it may be an arena's image.
struct ArenaCount {
  std::string name;         // the arena's or the file's: at most 63 bytes, \012 for a newline
  std::uint64_t inode = 0;  // distinguishes arenas and files of the same name
  std::uint64_t copied_pages = 0;
  std::uint64_t memory = 0;  // the number of the address space
  // Of a file's data: the part of copied_pages that was anonymous before; where the file would
  // begin, the mapped range, and the file's size.
  std::uint64_t copied_again = 0;
  std::uint64_t origin = 0;  // 0: an arena's memfd
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t file_bytes = 0;
  // The pages that were anonymous when the process was first seen to write: by an ancestor, or
  // before the measurement.
  std::uint64_t written_pages = 0;
  bool operator==(const ArenaCount&) const = default;
};

// The forks of a process, by all of its threads.
struct ForkCosts {
  // fork() and clone() that made a process with memory of its own, by how long the call took:
  // within 3.2 %.  In order of time.
  struct Duration {
    std::uint64_t ns = 0;
    std::uint64_t forks = 0;
    bool operator==(const Duration&) const = default;
  };
  struct Failure {
    int error = 0;  // errno; 0: not known
    std::uint64_t forks = 0;
    bool operator==(const Failure&) const = default;
  };
  std::vector<Duration> durations = {};
  std::uint64_t total_ns = 0;  // of these forks, as the next three
  std::uint64_t longest_ns = 0;
  std::uint64_t beside_threads = 0;  // while the process had other threads
  std::uint64_t most_threads = 0;    // that there were then, at most
  // Copied or reused by the thread that forked last, until then: what it wrote between its forks.
  std::uint64_t written_pages = 0;
  std::uint64_t spawns = 0;            // vfork() and posix_spawn() that succeeded
  std::vector<Failure> failures = {};  // of all; not those that a signal interrupted

  std::uint64_t forks() const { return sum_of(durations); }
  std::uint64_t failed() const { return sum_of(failures); }
  // nullopt: none succeeded.
  std::optional<std::uint64_t> median_ns() const {
    std::uint64_t left = (forks() + 1) / 2;
    for (const Duration& each : durations) {
      if (each.forks >= left) return std::min(each.ns, longest_ns);
      left -= each.forks;
    }
    return std::nullopt;
  }
  // What an earlier state of it lacks; `most_threads`, `longest_ns` and `written_pages` stay.
  ForkCosts since(const ForkCosts& before) const {
    ForkCosts more = *this;
    subtract(more.durations, before.durations, &Duration::ns);
    subtract(more.failures, before.failures, &Failure::error);
    more.total_ns -= std::min(total_ns, before.total_ns);
    return more;
  }
  void add(const ForkCosts& more) {
    add_to(durations, more.durations, &Duration::ns);
    add_to(failures, more.failures, &Failure::error);
    total_ns += more.total_ns;
    longest_ns = std::max(longest_ns, more.longest_ns);
    beside_threads += more.beside_threads;
    most_threads = std::max(most_threads, more.most_threads);
    written_pages += more.written_pages;
    spawns += more.spawns;
  }
  bool operator==(const ForkCosts&) const = default;

 private:
  static std::uint64_t sum_of(const auto& list) {
    std::uint64_t sum = 0;
    for (const auto& each : list) sum += each.forks;
    return sum;
  }
  template <class T, class Key>
  static void add_to(std::vector<T>& sums, const std::vector<T>& more, Key T::* key) {
    for (const T& each : more) {
      const auto at = std::ranges::lower_bound(sums, each.*key, {}, key);
      if (at != sums.end() && (*at).*key == each.*key) at->forks += each.forks;
      else sums.insert(at, each);
    }
  }
  template <class T, class Key>
  static void subtract(std::vector<T>& from, const std::vector<T>& less, Key T::* key) {
    for (const T& each : less) {
      const auto at = std::ranges::find(from, each.*key, key);
      if (at != from.end()) at->forks -= std::min(at->forks, each.forks);
    }
  }
};

enum class Role : std::uint8_t {
  root,   // the command, or an attached process
  child,  // a descendant of a root
};

// A process that sent a signal.
struct Sender {
  int pid = 0;       // in the PID namespace of the caller; 0: none there
  std::string comm;  // then
  auto operator<=>(const Sender&) const = default;
};

// The counts of count_list.h.  nullopt: not known.
struct Counts {
#define COWSHED_COUNT_MEMBER(name, ...) std::optional<std::uint64_t> name;
  COWSHED_COUNTS(COWSHED_COUNT_MEMBER)
#undef COWSHED_COUNT_MEMBER
  bool operator==(const Counts&) const = default;
};

// copied_anon_pages are without copied_hugetlb_pages.
struct ProcessCounts : Counts {
  std::uint64_t id = 0;         // unique in this Probe, unlike a PID
  std::uint64_t parent_id = 0;  // 0: the parent is not tracked
  int pid = 0;                  // in the PID namespace of the caller; 0: none there
  int ppid = 0;                 // when it was first tracked
  std::string comm;             // the current name
  Role role = Role::child;
  bool alive = true;
  bool shares_memory = false;  // started in its parent's address space (vfork, posix_spawn)
  std::uint64_t start_ns = 0;
  std::optional<std::uint64_t> end_ns;
  std::optional<std::uint64_t> first_copy_ns;  // nullopt also if copies are not sampled
  std::optional<int> exit_status;              // if it exited
  std::optional<int> signal;                   // if a signal ended it
  // The process that sent this signal; or, if it is_out_of_memory, that asked for memory then.
  // nullopt: itself, the kernel, or unknown.
  std::optional<Sender> sender;
  bool is_out_of_memory = false;  // the kernel's out-of-memory killer ended it
  std::uint32_t threads = 0;      // live now
  std::uint32_t threads_total = 0;
  std::uint32_t execs = 0;
  // The program that it runs, unique in this Probe: a fork runs its parent's.
  std::uint64_t image = 0;

  // The resident anonymous and hugetlbfs memory that it got from its parent at the fork; nullopt if
  // the fork was not seen or the child shares memory.
  std::optional<std::uint64_t> shared_at_fork_anon_bytes;
  // The frozen arenas and settled memory that its parent published then (base/published_layout.h),
  // without what was written of the latter; nullopt also if
  // the parent's layout could not be found or read.
  std::optional<std::uint64_t> shared_at_fork_arena_bytes;

  // The most that its resident anonymous and hugetlbfs memory rose above an earlier value, at
  // samples of its new memory; nullopt: there are none.
  std::optional<std::uint64_t> most_risen_bytes;

  // The most memory of any kind that it held at one time since its last exec, once it has ended.
  // nullopt also if it held more before.
  std::optional<std::uint64_t> most_resident_bytes;
  // The resident anonymous memory and private hugetlbfs memory that it had at its end, and how far
  // that is above the least at samples of its new memory.  nullopt before Linux 6.16.
  std::optional<std::uint64_t> anonymous_at_end_bytes;
  std::optional<std::uint64_t> risen_at_end_bytes;

  // All exceptions: the sum of the classes, zero_filled_faults and pending_faults.
  std::uint64_t write_faults = 0;
  // Faults in progress, without a class: at most one per live thread.
  std::uint64_t pending_faults = 0;
  std::uint64_t zero_filled_faults = 0;  // those of zero_filled_pages
  // In pages of 4 KiB, by faults that are in other_faults; and the part that was a file's.
  std::uint64_t copied_hugetlb_pages = 0;
  std::uint64_t copied_hugetlb_file_pages = 0;
  std::uint64_t filled_hugetlb_pages = 0;  // part of zero_filled_pages
  // Pages that were copied in the memory that it was forked from, from the fork (or when it was
  // first tracked) until its own exec or end.  nullopt: unknown.
  std::optional<std::uint64_t> parent_copied_pages;
  std::vector<ArenaCount> arenas;       // part of copied_file_pages
  std::optional<ForkCosts> fork_costs;  // nullopt: this kernel does not let us count forks

  std::uint64_t copied_pages() const {
    return copied_anon_pages.value_or(0) + copied_file_pages.value_or(0) + copied_hugetlb_pages;
  }
  bool operator==(const ProcessCounts&) const = default;
};

// Events that make a figure too small.  Counts are exact if lost() == 0.
struct Losses {
  std::uint64_t threads = 0;    // untracked: no memory for their state
  std::uint64_t processes = 0;  // untracked: the table was full
  std::uint64_t arenas = 0;     // copies without the name of their arena
  std::uint64_t late = 0;       // faults after the final counts of their process
  // Events that a program missed because BPF was running it for another task on that CPU, and that
  // nothing else shows.
  std::uint64_t missed = 0;
  // Faults that may be in a wrong class.  Either the mapping was not found: then reused, failed,
  // write_notify or other may be wrong.  Or the page tables are unreadable: then an absent private
  // page counts as a file copy, a first touch or other, but may be swapped in.  Not part of lost().
  std::uint64_t vma_misses = 0;

  std::uint64_t lost() const { return threads + processes + arenas + late + missed; }
};

// The cost of the probes.
struct ProbeOverhead {
  std::uint64_t events = 0;  // runs of our programs for a tracked process, exact
  // Mean over sampled runs of our programs, including those for untracked processes; nullopt: no
  // sample yet.
  std::optional<double> ns_per_event;
  // Faults whose mapping only the kernel's own search found, at some 10 microseconds each.  A few
  // happen while another thread maps or unmaps.
  std::uint64_t slow_lookups = 0;
};

struct Snapshot {
  std::uint64_t taken_ns = 0;
  std::vector<ProcessCounts> processes;  // by id, so a parent precedes its children
  Losses losses;
  ProbeOverhead overhead;
};

}  // namespace cowshed
