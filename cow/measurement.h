#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/probes/counts.h>

// The measurement model: the counted figures and their meaning.  Every other part of the project
// quotes this header.  All types are values and may cross threads.
//
// A fault is a write access that raised a page-fault exception.  Each fault counts once, in one of
// the classes below, for the process whose thread raised it.  A page is 4 KiB.  A figure that the
// backend cannot know is nullopt, never 0.
//
// Copies without an exception are not counted.  The kernel makes them by its own walk of the page
// tables: MADV_POPULATE_WRITE, mlock, futex operations, O_DIRECT reads, /proc/PID/mem,
// process_vm_writev and io_uring's fixed buffers.  (The sampled backend sees that such a page is no
// longer shared.)
//
// A copied page is one that the kernel copied.  If two threads write to a shared page at the same
// moment, the kernel may copy it twice and drop one copy (mm/memory.c, wp_page_copy).  Both count,
// as in taskstats.
namespace cowshed::cow {

inline constexpr std::uint64_t kPageSize = arch::kPage;

using cowshed::Role;

// The copies in one frozen arena: a private mapping of memfds named cowshed:NAME, or of an image's
// file, which the process's published layout names.  If a process with an image was never seen
// alive, its copies are those of a file.
struct ArenaCopies {
  std::string name;
  std::optional<std::uint64_t> bytes;  // size of the mappings
  std::uint64_t copied_pages = 0;      // by this process; part of copied_file_pages
  // Only of `files`.  The part of copied_pages that a fork shared, or that was written before.
  std::uint64_t copied_again_pages = 0;
  // Only of `files`.  The part of `bytes` that was written to before: by an ancestor, so that the
  // fork shared it, or before the measurement.
  std::uint64_t written_bytes = 0;
  // The part that was mapped and not written to at the last scan; nullopt: there was none.
  std::optional<std::uint64_t> held_bytes = std::nullopt;
  bool operator==(const ArenaCopies&) const = default;
};

// The copies of an object that the process published in a frozen arena.  Every backend samples
// them.
struct ObjectCopies {
  std::string name;  // empty: all objects of the type that have no name
  std::string type;  // as the compiler spells it
  std::string arena;
  std::uint64_t copied_pages = 0;  // pages that it overlaps; part of its arena's
  bool operator==(const ObjectCopies&) const = default;
};

// At most so many objects and sent types are kept for a process, so that its published layout
// cannot fill our memory.  Those with the least copies or bytes are one entry of this type.
inline constexpr std::size_t kMostObjects = 256;
inline constexpr const char* kFurtherObjects = "further objects";

// What cowshed.freeze() of Python publishes: the origin, and the type of objects frozen in part.
inline constexpr std::string_view kFreeze = "freeze";
inline constexpr std::string_view kFrozenInPart = "frozen in part";

// The objects of one type that a process has sent in one way, by one channel or one launch of
// workers.  Known for programs that link cowshed::share.  Every backend samples them.
struct SentObjects {
  std::string origin;  // "channel", "launch", "result", or kFreeze
  std::string name;
  std::string type;
  std::string kind;  // "value", "reference", "moved", "inherited"
  std::uint64_t messages = 0;
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;  // sent by value; else the bytes that were not copied
  bool operator==(const SentObjects&) const = default;
};

// A named cause of copies, derived from the stores of sampled copies (causes/copy_causes.h).
struct CopyPattern {
  std::string pattern;
  double share = 0;  // of the process's copies, 0 to 1, estimated
  std::uint64_t samples = 0;
  std::string evidence;
  std::string library =
      {};  // of own writes: the file name of the library that makes them; or empty
  bool operator==(const CopyPattern&) const = default;
};

// The memory that a process shares, at one moment.  Every backend samples it.  Copied pages and
// memory that is no longer shared may differ: the last sharer of a page gets it without a copy, and
// a copy may be freed.
struct MemorySample {
  // Resident anonymous memory that another process maps, too, and uncopied pages of frozen arenas
  // and of settled memory (share/settle.h).  (Before Linux 6.7, without CAP_SYS_ADMIN, also memory
  // that was read but never written.)
  std::uint64_t shared_bytes = 0;
  std::uint64_t private_bytes = 0;  // other resident anonymous memory
  std::uint64_t sampled_ns = 0;     // CLOCK_MONOTONIC
  std::uint64_t touched_pages = 0;  // ProcessCopies::touched_pages() then
  // The part of private_bytes in whole pages that malloc() of glibc and Python's pymalloc hold
  // free. Of that, what malloc_trim(3) can give back, and what pymalloc holds.  nullopt: not looked
  // for, as in small processes.
  std::optional<std::uint64_t> free_bytes = std::nullopt;
  std::optional<std::uint64_t> trimmable_bytes = std::nullopt;
  std::optional<std::uint64_t> free_in_pymalloc_bytes = std::nullopt;
  // With which malloc() maps most of its free blocks one by one; 0: they are too small, or of
  // unknown size.
  std::optional<std::uint64_t> mmap_threshold_bytes = std::nullopt;
  // That KSM has merged with equal pages.  nullopt: the kernel does not tell (before Linux 6.1).
  std::optional<std::uint64_t> merged_bytes = std::nullopt;
  // The copies of settled memory that the process has given back (share/settle.h): it shares those
  // pages again.  nullopt: it has no settled memory, or its copies are not counted.
  std::optional<std::uint64_t> undone_bytes = std::nullopt;
  bool operator==(const MemorySample&) const = default;
};

// The private memory of a process (MemorySample::private_bytes) that other measured processes hold
// byte for byte, too, when pages were last compared (backends/alike_meter.h).  A page that n
// processes hold counts as (n-1)/n in each, so that the sum over processes is what one copy for all
// would save.  Every backend samples it.
struct AlikeMemory {
  std::uint64_t private_bytes = 0;  // then
  std::uint64_t zero_bytes = 0;     // pages of zeros, which are not in the next two
  std::uint64_t same_address_bytes = 0;
  std::optional<std::uint64_t> any_address_bytes = std::nullopt;  // nullopt: a sample was compared
  // Pages that hold what the process's parent holds at the same address: of copies, those that
  // changed nothing.  At most the copies by both since a fork that was seen.  nullopt: its parent
  // is not measured, or it has executed another program.
  std::optional<std::uint64_t> unchanged_bytes = std::nullopt;
  double sampled_part = 1;       // of the private pages
  std::uint64_t sampled_ns = 0;  // CLOCK_MONOTONIC
  bool operator==(const AlikeMemory&) const = default;
};

// The most memory (PSS) that was read of a process.  Every backend samples it.
struct MemoryPeak {
  std::uint64_t pss_bytes = 0;
  std::uint64_t sampled_ns = 0;  // CLOCK_MONOTONIC
  bool operator==(const MemoryPeak&) const = default;
};

// The memory (PSS) of a running process and its page tables, when they were last read.  Every
// backend samples it.
struct PssSample {
  std::uint64_t pss_bytes = 0;
  std::uint64_t page_table_bytes = 0;
  std::uint64_t sampled_ns = 0;  // CLOCK_MONOTONIC
  bool operator==(const PssSample&) const = default;
};

// The memory (PSS) of a process when the kernel's out-of-memory killer struck, as last read.
struct MemoryHolder {
  pid_t pid = 0;
  std::string comm;  // as ProcessCopies::name()
  std::uint64_t bytes = 0;
  bool operator==(const MemoryHolder&) const = default;
};

// As OutOfMemory::limit: no cgroup's limit was reached.
inline constexpr std::string_view kMachine = "machine";

// That the kernel killed a process for want of memory.
struct OutOfMemory {
  // The kernel named the process.  Else its cgroup counted an oom_kill while it ended.
  bool is_sure = false;
  // The path of the cgroup (v2) whose memory.max was reached, or kMachine; empty: not known.
  std::string limit = {};
  std::optional<std::uint64_t> limit_bytes = std::nullopt;
  std::vector<MemoryHolder> holders = {};  // at most 3 measured processes, the largest first
  bool operator==(const OutOfMemory&) const = default;
};

// Identifies a process forever, unlike a PID.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_ns = 0;
  auto operator<=>(const ProcessId&) const = default;
};

// The figures of one process, or of several ended ones together.
//
// Counts: copied_anon_pages and copied_file_pages are of faults that allocated a page and copied
// another into it.  The sampled backend counts pages that were shared at the fork, are private now,
// and that the parent still has, whichever of the two copied.  So it knows no copied_anon_pages of
// a root.  zero_filled_pages are also those of a huge page that was touched first.  Most
// collapsed_pages were shared before; a few were private already, and they are in no other count.
// write_notify_faults follow a read; without one they are other_faults, as are a page in the page
// cache, a swap-in, userfaultfd, and all faults of hugetlbfs, where copied pages are part of
// copied_anon_pages or, if they were a file's, of copied_file_pages.  The sampled backend knows
// copied_pages_before_exec of those execs that it saw.
struct ProcessCopies : Counts {
  // More than 1: the sum of ended processes of the same parent and name
  // (backends/process_rollup.h). Then the counts are sums, other fields are those of the first
  // process, and optional fields in which the processes differ are nullopt.
  std::uint64_t processes = 1;
  pid_t pid = 0;   // in cowtop's own PID namespace
  pid_t ppid = 0;  // the process that forked it
  std::string comm;
  std::string title;   // "postgres: checkpointer", if the program gives its role; else empty
  std::string script;  // "python3 app.py": what an interpreter runs; else empty
  std::string cgroup;  // v2, as of its begin or last exec; empty: unknown
  Role role = Role::child;
  bool alive = false;          // still running at the last sample
  std::uint64_t start_ns = 0;  // CLOCK_MONOTONIC
  std::optional<std::uint64_t> end_ns;
  // The status of exit(), or the signal that ended it.  Both are nullopt while it is alive.  The
  // sampled backend knows them only for the command.
  std::optional<int> exit_status;
  std::optional<int> signal;

  // The process that sent this signal; or, if it is out_of_memory, that asked for memory then.
  // nullopt: itself, the kernel, or not known, as by the sampled backend.
  std::optional<Sender> sender;
  std::optional<OutOfMemory> out_of_memory;

  // The resident anonymous memory, the frozen arenas and the settled memory that the process got
  // from its parent at the fork.  nullopt for a root, and if they could not be found
  // (not_measured).
  std::optional<std::uint64_t> shared_at_fork_bytes;
  bool shares_memory = false;  // vfork, posix_spawn: in its parent's memory until it calls exec

  // Why its memory, or what it got at its fork, could not be read, in one line; nullopt if it
  // could.
  std::optional<std::string> not_measured;

  // As of the last scan; larger processes are scanned less often.  nullopt without a scan, and
  // while it shares_memory.
  std::optional<MemorySample> memory;
  std::optional<AlikeMemory> alike;  // nullopt: there was none to compare it with
  // The most that its resident anonymous memory rose above an earlier value since its fork or last
  // exec, or since the measurement began, at samples of its new memory.  nullopt: there are none.
  std::optional<std::uint64_t> most_risen_bytes;
  // Once it has ended, the most memory of any kind that it held at one time since its last exec.
  // nullopt also if it held more before.
  std::optional<std::uint64_t> most_resident_bytes;
  // At its end: its resident anonymous memory, with the arenas and the settled memory that it got
  // at its fork.  nullopt: it runs, or Linux is older than 6.16.
  std::optional<std::uint64_t> held_at_end_bytes;
  // The resident anonymous memory of a process that ran before the measurement, when that began.
  // nullopt: it did not, or its memory was never read.
  std::optional<std::uint64_t> resident_before_bytes;
  // The part of it that was shared; also what the process copied of it until the first scan.
  std::optional<std::uint64_t> shared_before_bytes;
  // nullopt if its PSS was never read.  Of several processes: the largest.
  std::optional<MemoryPeak> peak;
  std::optional<PssSample> pss;  // nullopt if it was never read; not in JSON and recordings
  // /proc denies access to its memory, which takes its user or CAP_SYS_PTRACE.  Sampled figures are
  // unknown.
  bool unreadable = false;

  // Its only thread has waited for 5 s or more for a futex that another thread of it would have to
  // wake: a lock that was held at the fork.
  bool waits_for_ever = false;

  std::uint64_t execs = 0;
  // nullopt: not known, as by the sampled backend.
  std::optional<ForkCosts> fork_costs;
  // Pages that the parent copied from the fork (or the begin of the measurement) until this process
  // ended or executed a program: those that it would not have copied without it, if it was the only
  // child.  Exact; nullopt for the sampled backend, and for a sum of several processes.
  std::optional<std::uint64_t> parent_copied_pages;
  std::vector<ArenaCopies> arenas;
  // The same of files of 1 MiB or more that are no arena, of which the process wrote to private
  // mappings since its last exec.  Programs and libraries (ELF) are not among them: they are
  // relocated.  By name, the first 63 bytes.  The sampled backend does not know them.
  std::vector<ArenaCopies> files;
  // Every object of the arenas with copied pages, as of the last sample of the living process.
  // nullopt if there are copied pages but no sample.
  std::optional<std::vector<ObjectCopies>> objects;
  // As of the last sample of the living process.  nullopt without a sample, or if the program does
  // not count it.
  std::optional<std::vector<SentObjects>> transfers;
  // The sampled copies; nullopt if copies are not sampled.
  std::optional<SampledCopies> sampled;

  // The causes, most copies first; nullopt if copies are not sampled.
  std::optional<std::vector<CopyPattern>> patterns;

  ProcessId id() const { return {pid, start_ns}; }
  const std::string& name() const { return title.empty() ? comm : title; }  // in reports
  // Every copy.  fork_copies.h says which of them a fork caused.
  std::optional<std::uint64_t> all_copied_pages() const {
    if (!copied_anon_pages || !copied_file_pages) return std::nullopt;
    return *copied_anon_pages + *copied_file_pages;
  }
  // New pages of its own, each time that it got one; 0: not known.
  std::uint64_t touched_pages() const {
    return zero_filled_pages.value_or(0) - shared_memory_pages.value_or(0) +
           zero_page_writes.value_or(0);
  }
  bool operator==(const ProcessCopies&) const = default;
};

// Processes of the measured trees that ended before a sampling backend saw them.  A measurement is
// complete only if at_most is 0.
struct ProcessesNotSeen {
  // Derived from the page faults of reaped children that were never seen.
  std::uint64_t at_least = 0;
  // All other processes and threads that the machine created during the measurement.
  std::optional<std::uint64_t> at_most;
};

struct Overhead {
  std::uint64_t events = 0;            // probe runs for measured processes, or samples
  std::optional<double> ns_per_event;  // mean
};

// The memory of all measured processes together, by proportional set size (PSS): a page that n
// processes map counts as 1/n in each, so that the sum is what the tree takes, without huge pages
// of hugetlbfs.  Sampled.
struct TreeMemory {
  std::uint64_t pss_bytes = 0;  // at the last sample
  std::uint64_t peak_pss_bytes = 0;
  // At the peak:
  std::uint64_t page_table_bytes = 0;
  std::uint64_t processes = 0;         // that were read
  std::uint64_t unread_processes = 0;  // whose memory /proc refuses us
  // Of memfds, MAP_SHARED and /dev/shm, each page once; with the pages of memfds that nobody maps.
  std::uint64_t shared_memory_bytes = 0;
  // The peak at most, where processes that were growing ended before they were read; 0: none did,
  // or it is not known.  The sampled backend estimates it: it may have been more.
  std::uint64_t most_peak_bytes = 0;
  bool operator==(const TreeMemory&) const = default;
};

// The memory cgroup (v2) of a command, which had it alone with its descendants.
struct MemoryCgroup {
  std::uint64_t peak_bytes = 0;  // memory.peak: with page cache and kernel memory
  std::uint64_t oom_kills = 0;   // processes that the kernel killed for want of memory
  // The path of the cgroup, it or one above it, whose memory.max is the least; empty: none has one.
  std::string limit = {};
  bool operator==(const MemoryCgroup&) const = default;
};

// The result of one run of a backend, over one or more process trees.
struct Measurement {
  std::string backend;  // "tracepoint" or "pagemap"
  bool exact = false;
  double duration_s = 0;
  std::uint64_t taken_ns = 0;  // CLOCK_MONOTONIC
  std::optional<std::uint64_t> lost_events;
  // Write faults whose mapping another thread was changing.  They may be in the wrong class of
  // reused, failed, write notification and other; counts of copies are right.
  std::optional<std::uint64_t> unsure_faults;
  std::optional<ProcessesNotSeen> not_seen;  // nullopt: the kernel reports each process
  Overhead overhead;
  std::optional<TreeMemory> memory;  // nullopt: none could be read
  // Of a command, at its end; nullopt: it had no cgroup of its own.  No backend sets it.
  std::optional<MemoryCgroup> memory_cgroup;
  std::optional<SamplingSummary> sampling;  // nullopt: copies were not sampled
  std::optional<SampledCopies> sampled;     // all processes together
  std::optional<NewMemory> new_memory;      // the same; nullopt: not sampled
  std::vector<ProcessCopies> processes;     // in order of start

  // How the copies were counted, in a word: "inexact" if events were lost.
  const char* precision() const {
    if (!exact) return "sampled";
    return lost_events.value_or(0) == 0 ? "exact" : "inexact";
  }

  // All processes, including those in sums.
  std::uint64_t process_count() const {
    std::uint64_t count = 0;
    for (const ProcessCopies& process : processes) count += process.processes;
    return count;
  }

  // The seconds from the begin of the measurement to a time of its clock.
  double since_begin_s(std::uint64_t ns) const {
    constexpr double kNsPerSecond = 1e9;
    const double before_end_s =
        (static_cast<double>(taken_ns) - static_cast<double>(ns)) / kNsPerSecond;
    return std::max(0.0, duration_s - before_end_s);
  }

  // The age of a process's memory sample at its end, or when this measurement was taken.
  double memory_age_s(const ProcessCopies& process) const {
    constexpr double kNsPerSecond = 1e9;
    const std::uint64_t then = process.memory ? process.memory->sampled_ns : 0;
    const std::uint64_t end = process.end_ns.value_or(taken_ns);
    return end > then ? static_cast<double>(end - then) / kNsPerSecond : 0;
  }
};

// A count of count_list.h.
struct CountInfo {
  const char* name;
  std::optional<std::uint64_t> ProcessCopies::* count;
  const char* column;
  const char* kind;
  const char* meaning;
};
inline constexpr std::array kCounts = {
#define COWSHED_COUNT_INFO(name, counter, ...) CountInfo{#name, &ProcessCopies::name, __VA_ARGS__},
    COWSHED_COUNTS(COWSHED_COUNT_INFO)
#undef COWSHED_COUNT_INFO
};

}  // namespace cowshed::cow
