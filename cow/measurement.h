#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/copy_profile.h>

// The measurement model: what is counted, and what each word means.  Every other part of the
// project quotes this header.
//
// A fault here is a write access that raised a page-fault exception.  Each is counted once, in one
// of the classes below, for the process whose thread raised it.  Pages are 4 KiB.  A figure that
// the backend cannot know is nullopt, never 0.
//
// Copies without an exception are not counted: MADV_POPULATE_WRITE, mlock, futex operations,
// O_DIRECT reads, /proc/PID/mem, process_vm_writev and io_uring's fixed buffers copy through the
// kernel's own walk of the page tables.  (The sampled backend sees that such a page is no longer
// shared.)
//
// Copied means that the kernel copied.  Where two threads of a process write to the same shared
// page at the same moment, it copies twice and throws one copy away (mm/memory.c, wp_page_copy):
// both are counted, as in taskstats.
namespace cowshed::cow {

inline constexpr std::uint64_t kPageSize = 4096;

enum class Role : std::uint8_t {
  root,   // the command, or each of those that were attached to
  child,  // a descendant of it
};

// A frozen arena: a private mapping of memfds named cowshed:NAME, or of an image's file, which the
// process's published layout names.  (An image's process that was never seen alive copied a file.)
struct ArenaCopies {
  std::string name;
  std::optional<std::uint64_t> bytes;  // size of the mapping
  std::uint64_t copied_pages = 0;      // of it, by this process; part of copied_file_pages
  bool operator==(const ArenaCopies&) const = default;
};

// An object that the process's program published in a frozen arena.  Sampled by every backend.
struct ObjectCopies {
  std::string name;  // empty: all of its type that were published without one
  std::string type;  // as the compiler writes it
  std::string arena;
  std::uint64_t copied_pages = 0;  // that it overlaps; part of its arena's
  bool operator==(const ObjectCopies&) const = default;
};

// What a program that links cowshed::share has sent in one way, as one type, through one channel or
// by one launch of workers.  Sampled by every backend.
struct SentObjects {
  std::string origin;  // "channel" or "launch"
  std::string name;
  std::string type;
  std::string kind;  // "value", "reference", "moved", "inherited"
  std::uint64_t messages = 0;
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;  // by value: sent; else of what was not copied
  bool operator==(const SentObjects&) const = default;
};

// A named reason for copies, from how the sampled ones were first written to: see
// causes/copy_causes.h.
struct CopyPattern {
  std::string pattern;
  double share = 0;  // of the process's samples
  std::uint64_t samples = 0;
  std::string evidence;
  bool operator==(const CopyPattern&) const = default;
};

// What fork shares of a process's memory, at one moment.  Sampled by every backend.  Copies that
// were counted and memory that is no longer shared differ: the last who shares a page pays nothing
// for it, and a copy may be given back.
struct MemorySample {
  // Resident anonymous memory that another process maps, too, and what was not copied of frozen
  // arenas.  (Before Linux 6.7, without CAP_SYS_ADMIN, also what was read and never written.)
  std::uint64_t shared_bytes = 0;
  std::uint64_t private_bytes = 0;  // resident anonymous memory of its own
  std::uint64_t sampled_ns = 0;     // CLOCK_MONOTONIC
  bool operator==(const MemorySample&) const = default;
};

// A process, for good: PIDs are used again.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_ns = 0;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it
  auto operator<=>(const ProcessId&) const = default;
};

struct ProcessCopies {
  // That this is the sum of: of many that have ended, those of one place and one name are one (see
  // backends/process_rollup.h).  Then what follows is the first one's, counts are those of all
  // together, and what they differ in is nullopt.
  std::uint64_t processes = 1;
  pid_t pid = 0;   // in cowtop's own PID namespace
  pid_t ppid = 0;  // the parent that forked it
  std::string comm;
  Role role = Role::child;
  bool alive = false;          // still running at the last sample
  std::uint64_t start_ns = 0;  // CLOCK_MONOTONIC
  std::optional<std::uint64_t> end_ns;
  // Of exit(), or the signal that ended it; the other is nullopt.  Both are while it is alive; the
  // sampled backend knows them of the command alone.
  std::optional<int> exit_status;
  std::optional<int> signal;

  // The parent's resident anonymous memory plus the size of its frozen arenas when it forked this
  // process.  Approximate: the kernel batches the counters.  nullopt for the root.  (Of several
  // processes: the sum.)
  std::optional<std::uint64_t> shared_at_fork_bytes;
  bool shares_memory =
      false;  // vfork or posix_spawn: it runs in its parent's memory until it execs

  // Why its memory could not be read, in one line; nullopt if it could.
  std::optional<std::string> not_measured;

  // The fault allocated a page and copied another into it, in a mapping without a file behind it.
  // The sampled backend counts what was shared at the fork and is this process's own while the
  // parent still has its page, whoever of the two made the copy: so nothing for the root.
  std::optional<std::uint64_t> copied_anon_pages;
  // The same in a private mapping of a file: a library's .data, a lenient arena.
  std::optional<std::uint64_t> copied_file_pages;
  // Write-protected, and nobody else used the page any more: made writable, nothing copied.
  std::optional<std::uint64_t> reused_pages;
  // Write over the shared zero page that an earlier read had mapped: a page is allocated, not
  // copied.
  std::optional<std::uint64_t> zero_page_writes;
  // First touch: a fresh zeroed page; a huge page counts as 512.
  std::optional<std::uint64_t> zero_filled_pages;
  // A write to a shared 2 MiB page splits its mapping, once; the copy is then of 4 KiB.
  std::optional<std::uint64_t> huge_splits;
  // Made its own without a fault, and part of no other count: MADV_COLLAPSE or khugepaged copied
  // them into a huge page.  Most that were shared are so no more; a few were its own before.
  std::optional<std::uint64_t> collapsed_pages;
  // First write to a clean page of a shared file mapping that was read before: the file system is
  // told, nothing is copied.  (Not read before: one of other_faults.)
  std::optional<std::uint64_t> write_notify_faults;
  // Not allowed: ends as SIGSEGV, SIGBUS or EFAULT.
  std::optional<std::uint64_t> failed_faults;
  // None of these: the page was in the page cache already, a swap-in, hugetlbfs, userfaultfd.
  std::optional<std::uint64_t> other_faults;

  // As of the last look at it alive: a larger process is looked at less often.  nullopt where there
  // was none, and for one that shares_memory.
  std::optional<MemorySample> memory;
  // /proc refuses us its memory, which takes its user or CAP_SYS_PTRACE: what is sampled of it is
  // not known.
  bool unreadable = false;

  std::uint64_t execs = 0;
  // Part of copied_pages, up to the last exec.  Sampled: what was seen before it.
  std::optional<std::uint64_t> copied_pages_before_exec;
  std::vector<ArenaCopies> arenas;
  // Of the arenas of which pages were copied, every object, as of the last sample that found the
  // process alive.  nullopt where there are such pages and none was read.
  std::optional<std::vector<ObjectCopies>> objects;
  // As of the last sample that found the process alive.  nullopt where it does not count that, or
  // no sample found it.
  std::optional<std::vector<SentObjects>> transfers;
  // Who copied and what; nullopt where copies are not sampled.
  std::optional<SampledCopies> sampled;

  // Most samples first.  nullopt where copies were not sampled.
  std::optional<std::vector<CopyPattern>> patterns;

  ProcessId id() const { return {pid, start_ns}; }
  std::optional<std::uint64_t> copied_pages() const {
    if (!copied_anon_pages || !copied_file_pages) return std::nullopt;
    return *copied_anon_pages + *copied_file_pages;
  }
  std::optional<std::uint64_t> copied_bytes() const {
    const auto pages = copied_pages();
    if (!pages) return std::nullopt;
    return *pages * kPageSize;
  }
  // What was copied of what was shared at the fork: copies after an exec are of something else.
  // nullopt when either is unknown or nothing was shared.
  std::optional<double> copied_ratio() const {
    const auto pages = execs == 0 ? copied_pages() : copied_pages_before_exec;
    if (!pages || shared_at_fork_bytes.value_or(0) == 0) return std::nullopt;
    return static_cast<double>(*pages * kPageSize) / static_cast<double>(*shared_at_fork_bytes);
  }
  bool operator==(const ProcessCopies&) const = default;
};

// What a sampling backend has missed of the measured trees: processes that ended before they were
// looked at.  A measurement where at_most is not 0 is not whole.
struct ProcessesNotSeen {
  // By page faults of children that were waited for and that nobody had seen.
  std::uint64_t at_least = 0;
  // All processes and threads that the machine has made meanwhile and that
  // are not ours.  nullopt where that is not known either.
  std::optional<std::uint64_t> at_most;
};

struct Overhead {
  std::uint64_t events = 0;            // probe runs on behalf of the measured processes, or samples
  std::optional<double> ns_per_event;  // mean
};

// What one run of a backend measured, over one or more process trees.
struct Measurement {
  std::string backend;  // "tracepoint" or "pagemap"
  bool exact = false;
  double duration_s = 0;
  std::uint64_t taken_ns = 0;  // CLOCK_MONOTONIC
  std::optional<std::uint64_t> lost_events;
  // Write faults whose mapping another thread was changing: perhaps in the wrong class of reused,
  // failed, write notification and other.  A copy is a copy.
  std::optional<std::uint64_t> unsure_faults;
  std::optional<ProcessesNotSeen> not_seen;  // nullopt: the backend is told of each process
  Overhead overhead;
  std::optional<SamplingSummary> sampling;  // nullopt: copies were not sampled
  std::optional<SampledCopies> sampled;     // of all processes
  std::vector<ProcessCopies> processes;     // in order of start

  // Of all, also those that are not listed each.
  std::uint64_t process_count() const {
    std::uint64_t count = 0;
    for (const ProcessCopies& process : processes) count += process.processes;
    return count;
  }

  // How old the sampled memory of one of them is: at its end, or when this was taken.
  double memory_age_s(const ProcessCopies& process) const {
    constexpr double kNsPerSecond = 1e9;
    const std::uint64_t then = process.memory ? process.memory->sampled_ns : 0;
    const std::uint64_t end = process.end_ns.value_or(taken_ns);
    return end > then ? static_cast<double>(end - then) / kNsPerSecond : 0;
  }
};

}  // namespace cowshed::cow
