#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/arenas/object_copies.h>
#include <cowshed/cow/backend.h>
#include <cowshed/cow/backends/tree_memory.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/profile/copy_profiler.h>
#include <cowshed/probes/probe.h>

namespace cowshed::cow {

// Measures with eBPF on the kernel's fault tracepoints: counts every write fault of every process
// of the tree, from its first instruction.  The sizes of arenas come from /proc as soon as a
// process is seen.  They are unknown if the process and its parent have both ended by then.  The
// copied objects come from /proc, too, at each sample that sees an arena's count change.
class TracepointBackend : public Backend {
 public:
  // Errors: as Probe::load().
  static Expected<std::unique_ptr<Backend>> open(const SamplingOptions& sampling = {},
                                                 ProcFiles proc = ProcFiles());

  std::string_view name() const override { return "tracepoint"; }
  bool exact() const override { return true; }
  Expected<void> track_command(pid_t child) override;
  Expected<Attached> attach(const std::vector<pid_t>& roots) override;
  bool measures(pid_t pid) const override { return alive_.contains(pid); }
  Expected<void> sample() override;
  std::chrono::milliseconds interval() const override;
  void want_memory() override { memory_.make_due(); }
  int pending_fd() const override { return profiler_ ? probe_.samples_fd() : -1; }
  std::optional<std::chrono::milliseconds> pending_interval() const override;
  bool take_pending() override;
  bool any_alive() const override;
  using Backend::measurement;
  Measurement measurement(const CodeOf& code) const override;
  void merge_ended(std::size_t most) override;
  std::vector<ProcessCopies> take_ended() override;

 private:
  // A scan walks through the maps and pagemap of a process.
  static constexpr std::uint64_t kBetweenScansNs = 50'000'000;
  static constexpr std::uint64_t kScansOfOneShare = 50;

  // The state of a process until one sample() after its end.
  struct Live {
    ProcessCounts counts;     // as of the last sample()
    bool has_changed = true;  // has counted something since the last scan
    bool sends = false;       // it, or a parent that forked it, has counted what it sent
    bool was_gone = false;    // before the last snapshot, as all were
    std::uint64_t parent_id = 0;
    PageRanges inherited;                 // pages of frozen arenas that the parent had copied
    PageRanges for_children;              // such pages of its own, read in the sample()
    std::uint64_t for_children_read = 0;  // of this number
    std::uint64_t object_pages = 0;       // copied pages of arenas when `objects` was read
    // The names of arenas by the addresses of their mappings; empty for a file that is no arena.
    std::map<std::uint64_t, std::string> arena_names;
    internal::DutyCycle scans{kScansOfOneShare, kBetweenScansNs};
    std::uint64_t last_scan_ns = 0;
  };
  struct Process {
    ProcessCopies copies;
    std::unique_ptr<Live> live;  // null: nothing more of it is to come
  };

  TracepointBackend(Probe probe, const SamplingOptions& sampling, ProcFiles proc);

  Expected<void> take_samples();
  void take_samples_meanwhile();
  void note_who_is_gone();
  void add_snapshot(const Snapshot& snapshot);
  void update(Process& process, const ProcessCounts& counts);
  void read_cgroup(Process& process, const ProcessCounts& counts);
  void inherit(Process& child, const ProcessCounts& counts);
  const PageRanges& pages_for_children(Process& parent);
  std::optional<std::uint64_t> read_arenas(Process& process);
  void count_arenas(Process& process);
  void read_objects(Process& process);
  void read_sent(Process& process);
  std::optional<std::vector<CopiedArena>> copied_arenas(const Process& process,
                                                        const std::vector<Mapping>& mappings);
  void scan_memory(const Snapshot& snapshot);
  std::vector<Process*> due_for_scan(const Snapshot& snapshot, std::uint64_t now);
  void scan(ProcessCopies& copies);
  CopiedPages new_pages() const;
  void forget_the_ended(const Snapshot& snapshot);

  Probe probe_;
  ProcFiles proc_;
  std::map<std::uint64_t, Process> processes_;  // by the probe's id: in order of start
  std::set<pid_t> alive_;
  std::vector<std::uint64_t> ended_;  // in the last snapshot
  std::uint64_t samples_ = 0;
  internal::DutyCycle scans_;
  internal::TokenBucket scan_budget_;
  internal::TokenBucket snapshot_budget_;
  std::uint64_t last_snapshot_cost_ns_ = 0;
  std::uint64_t usual_snapshot_cost_ns_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t unsure_faults_ = 0;
  Overhead overhead_;
  TreeMemoryMeter memory_;
  std::optional<SamplingSummary> sampling_;
  std::unique_ptr<CopyProfiler> profiler_;  // null: copies are not sampled
  std::size_t taken_meanwhile_ = 0;         // samples of copies, since the last sample()
  bool is_pending_ = false;                 // the last take_pending() took some
  std::chrono::milliseconds pending_wait_{10};
};

}  // namespace cowshed::cow
