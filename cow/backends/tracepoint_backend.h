#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/backend.h>
#include <cowshed/cow/backends/alike_meter.h>
#include <cowshed/cow/backends/traced_process.h>
#include <cowshed/cow/backends/tree_memory.h>
#include <cowshed/cow/proc/memory_cgroups.h>
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
  void want_memory() override {
    are_scans_wanted_ = true;
    memory_.make_due();
    alike_.make_due();
  }
  int pending_fd() const override { return profiler_ ? probe_.samples_fd() : -1; }
  std::optional<std::chrono::milliseconds> pending_interval() const override {
    return is_pending_ ? std::optional(pending_wait_) : std::nullopt;
  }
  bool take_pending() override;
  bool any_alive() const override;
  using Backend::measurement;
  Measurement measurement(const CodeOf& code) const override;
  void merge_ended(std::size_t most) override;
  std::vector<ProcessCopies> take_ended() override;

 private:
  TracepointBackend(Probe probe, const SamplingOptions& sampling, ProcFiles proc);

  Expected<void> take_samples();
  void take_samples_meanwhile();
  void note_who_is_gone();
  void add_snapshot(const Snapshot& snapshot);
  void scan_memory();
  void look_at_new_pages(TracedProcess& process, const std::vector<Mapping>& mappings);
  NewMemory new_memory(const Measurement& result) const;
  void forget_the_ended();
  std::vector<AlikeProcess> running();
  void explain_kills();
  TreeProcess in_tree(std::uint64_t id, TracedProcess& process) const;

  Probe probe_;
  ProcFiles proc_;
  std::map<std::uint64_t, TracedProcess> processes_;  // by the probe's id: in order of start
  std::set<pid_t> alive_;
  std::uint64_t samples_ = 0;
  internal::DutyCycle scans_;
  internal::TokenBucket scan_budget_;
  std::uint64_t rest_credit_ns_ = 0;  // for scans of processes at rest, once
  bool are_scans_wanted_ = false;     // of all running processes, once
  internal::TokenBucket snapshot_budget_;
  std::uint64_t last_snapshot_cost_ns_ = 0;
  std::uint64_t usual_snapshot_cost_ns_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t unsure_faults_ = 0;
  Overhead overhead_;
  TreeMemoryMeter memory_;
  AlikeMeter alike_;
  MemoryCgroups cgroups_;
  bool is_command_ = false;  // nothing was attached
  std::optional<SamplingSummary> sampling_;
  std::unique_ptr<CopyProfiler> profiler_;  // null: copies are not sampled
  std::size_t taken_meanwhile_ = 0;         // samples of copies, since the last sample()
  bool is_pending_ = false;                 // the last take_pending() took some
  std::chrono::milliseconds pending_wait_{10};
};

}  // namespace cowshed::cow
