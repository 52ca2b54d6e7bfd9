#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// What the probes counted, as plain values: copyable, owning, free to cross threads.
// A page is 4 KiB.  Times are CLOCK_MONOTONIC nanoseconds.
namespace cowshed {

// Copies of one frozen arena's pages by one process: of the memfd "memfd:cowshed:NAME", or of a
// private mapping of a file that may be an arena's image, in whole 2 MiB.
struct ArenaCount {
  std::string name;           // empty: not a memfd
  std::uint64_t inode = 0;    // of the memfd: tells arenas of the same name apart
  std::uint64_t address = 0;  // where the mapping begins that is no memfd's
  std::uint64_t copied_pages = 0;
  bool operator==(const ArenaCount&) const = default;
};

enum class ProcessRole : std::uint8_t { root, child };

struct ProcessCounts {
  std::uint64_t id = 0;         // unique in this Probe, unlike a PID
  std::uint64_t parent_id = 0;  // 0 where the parent is not tracked
  int pid = 0;                  // in the PID namespace of the caller, 0 where it has none there
  int ppid = 0;                 // when it started, or was found running
  std::string comm;             // the newest name
  ProcessRole role = ProcessRole::child;
  bool alive = true;
  bool shares_memory = false;  // began in its parent's address space: vfork, posix_spawn
  std::uint64_t start_ns = 0;
  std::optional<std::uint64_t> end_ns;
  std::optional<int> exit_status;  // of a process that exited
  std::optional<int> signal;       // that ended it
  std::uint32_t threads = 0;       // live now
  std::uint32_t threads_total = 0;
  std::uint32_t execs = 0;

  // The parent's resident anonymous memory when it forked; nothing where the fork was not seen or
  // the child shares memory.
  std::optional<std::uint64_t> shared_at_fork_anon_bytes;

  // The classes, each a number of write faults.  A fault that allocated a page and copied another
  // into it: *file* where the mapping has a file behind it (a library's .data, a lenient arena).
  std::uint64_t copied_anon_pages = 0;
  std::uint64_t copied_file_pages = 0;
  std::uint64_t reused_pages = 0;         // the last sharer: made writable in place
  std::uint64_t zero_page_writes = 0;     // over the kernel's page of zeros, that a read had mapped
  std::uint64_t zero_filled_faults = 0;   // first touch; see zero_filled_pages
  std::uint64_t write_notify_faults = 0;  // the first store to a clean page of a shared file
  std::uint64_t failed_faults = 0;  // SIGSEGV, SIGBUS, or EFAULT and a retry inside the kernel
  std::uint64_t other_faults = 0;   // hugetlb, userfaultfd, swap, a present page of a file

  // Exceptions in all: the sum of the classes and pending_faults.
  std::uint64_t write_faults = 0;
  // At most one per live thread: may be in progress, so it has no class yet.  0 once ended.
  std::uint64_t pending_faults = 0;

  std::uint64_t zero_filled_pages = 0;  // a huge first touch is one fault and 512 pages
  // Shared 2 MiB pages that a write broke into 4 KiB ones; nothing where the kernel does not say.
  std::optional<std::uint64_t> huge_splits;
  // Pages that the kernel copied into huge pages without a fault (MADV_COLLAPSE, khugepaged).  The
  // process shares none of them afterwards.  Nothing if the kernel does not report collapses.
  std::optional<std::uint64_t> collapsed_pages;
  // Of copied_pages(): before the last exec, so not of what the process now runs.
  std::uint64_t copied_pages_before_exec = 0;
  std::vector<ArenaCount> arenas;  // part of copied_file_pages

  std::uint64_t copied_pages() const { return copied_anon_pages + copied_file_pages; }
  bool operator==(const ProcessCounts&) const = default;
};

// What could make a figure too small.  Exact means lost() == 0.
struct Losses {
  std::uint64_t threads = 0;    // not tracked: no memory for their state
  std::uint64_t processes = 0;  // not tracked: the table was full
  std::uint64_t arenas = 0;     // copies counted, but not under their arena's name
  std::uint64_t late = 0;       // faults of a process whose final counts had been handed out
  // Faults whose mapping was not found: counted, but perhaps in the wrong class of reused, failed,
  // write_notify and other; and private pages that were not there, where the page tables cannot be
  // read: counted as copied (file), first touch or other, perhaps swapped in.  Not part of lost().
  std::uint64_t vma_misses = 0;
  // Runs that BPF refused because an interrupt came in during a run of the same program.  Such an
  // interrupt is never a fault of a tracked task.  Not part of lost().
  std::uint64_t missed_runs = 0;

  std::uint64_t lost() const { return threads + processes + arenas + late; }
};

// What the probes themselves cost.
struct ProbeOverhead {
  std::uint64_t events = 0;  // exact: runs of our programs that concerned a tracked process
  // Mean of the sampled runs of all our programs, those for untracked processes included; nothing
  // while there is no sample.
  std::optional<double> ns_per_event;
  // Faults for which the lock-free search of the mapping failed and the kernel's own had to help,
  // at some 10 microseconds each.  A few happen while another thread maps or unmaps.
  std::uint64_t slow_lookups = 0;
};

struct Snapshot {
  std::uint64_t taken_ns = 0;
  std::vector<ProcessCounts> processes;  // by id, so a parent precedes its children
  Losses losses;
  ProbeOverhead overhead;
};

}  // namespace cowshed
