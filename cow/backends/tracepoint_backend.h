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
#include <cowshed/cow/backend.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/profile/copy_profiler.h>
#include <cowshed/probes/probe.h>

namespace cowshed::cow {

// Measures with eBPF on the kernel's fault tracepoints: every write fault of every process of the
// tree, from its first instruction, exactly.  Sizes of arenas come from /proc as soon as a process
// is seen; where both it and its parent have ended by then, they are not known.  Which published
// objects were copied comes from there too, at the samples that see a count of an arena change.
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
  std::optional<std::chrono::milliseconds> pending_interval() const override;
  bool take_pending() override;
  bool any_alive() const override;
  using Backend::measurement;
  Measurement measurement(const CodeOf& code) const override;
  void merge_ended(std::size_t most) override;
  std::vector<ProcessCopies> take_ended() override;

 private:
  // For what a process shares and has sent: walks through its /proc/PID/maps and pagemap.
  static constexpr std::uint64_t kBetweenLooksNs = 50'000'000;
  static constexpr std::uint64_t kLookCostFactor = 50;

  TracepointBackend(Probe probe, const SamplingOptions& sampling, ProcFiles proc);

  Expected<void> take_samples();
  void take_samples_meanwhile();
  void update(const ProcessCounts& counts);
  const PageRanges& look_at_parent(std::uint64_t id, ProcessCopies& parent);
  void inherit(ProcessCopies& child, const ProcessCounts& counts);
  void read_arenas(std::uint64_t id, ProcessCopies& process);
  void count_arenas(const ProcessCounts& counts, ProcessCopies& process);
  void look_at_objects(std::uint64_t id, ProcessCopies& process);
  void look_at_memory(const Snapshot& snapshot);
  void look_inside(ProcessCopies& process);
  void forget_the_ended(const Snapshot& snapshot);

  Probe probe_;
  ProcFiles proc_;
  std::map<std::uint64_t, ProcessCopies> processes_;  // by the probe's id: in order of start
  std::vector<ProcessCounts> counts_;                 // as of the last sample(), likewise
  std::set<pid_t> alive_;
  struct Details {
    std::uint64_t parent_id = 0;
    PageRanges inherited;               // pages of frozen arenas that the parent had copied
    std::uint64_t pages_looked_at = 0;  // pages of arenas copied by then
    // Of its mappings, by where they begin; empty for what is no arena.
    std::map<std::uint64_t, std::string> names;
    // Looks at its memory.
    DutyCycle pace{kLookCostFactor, kBetweenLooksNs};
    std::uint64_t last_look_ns = 0;
    bool has_changed = true;  // has counted something since
  };
  std::map<std::uint64_t, Details> details_;     // of each
  std::map<std::uint64_t, PageRanges> parents_;  // what children inherit of each in this sample()
  DutyCycle all_looks_;
  TokenBucket looks_budget_;
  std::vector<std::uint64_t> ended_;  // before the last sample(): of which nothing more is to come
  TokenBucket samples_budget_;
  std::uint64_t last_sample_cost_ns_ = 0;
  std::uint64_t usual_sample_cost_ns_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t unsure_faults_ = 0;
  Overhead overhead_;
  std::optional<SamplingSummary> sampling_;
  std::unique_ptr<CopyProfiler> sampler_;  // null: copies are not sampled
  std::size_t taken_meanwhile_ = 0;        // samples, since the last sample()
};

}  // namespace cowshed::cow
