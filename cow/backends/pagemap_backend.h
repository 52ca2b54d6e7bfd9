#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/backend.h>
#include <cowshed/cow/backends/alike_meter.h>
#include <cowshed/cow/backends/tree_memory.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc/memory_cgroups.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/proc/process_pages.h>

namespace cowshed::cow {

// Measures by sampling /proc, without privilege, processes that the caller may ptrace.
//
// A copy here is a page that a process shared with its parent when it was first seen, and that it
// now has alone while the parent still has its own.  Written pages of private file mappings, such
// as frozen arenas, are exact as of each scan.  Unknown are: the side of a fork that made the copy,
// pages that were copied after the last scan or freed before the next one, and faults that copy
// nothing.  Processes that end before they are seen are counted (Measurement::not_seen).
//
// A scan of a process costs in proportion to its memory (base/pagemap.h).  The search for processes
// and the scans each take at most a tenth of one CPU.  With many processes each is scanned less
// often, and its figures are older (Measurement::memory_age_s).  Processes with page faults, or
// with a parent or child that had some, go first; others are scanned at most once a second.
class PagemapBackend : public Backend {
 public:
  explicit PagemapBackend(ProcFiles proc = ProcFiles());
  ~PagemapBackend() override;

  std::string_view name() const override { return "pagemap"; }
  bool exact() const override { return false; }
  Expected<void> track_command(pid_t child) override;
  Expected<Attached> attach(const std::vector<pid_t>& roots) override;
  bool measures(pid_t pid) const override { return alive_.contains(pid); }
  Expected<void> sample() override;
  std::chrono::milliseconds interval() const override;
  void want_memory() override {
    memory_.make_due();
    alike_.make_due();
  }
  bool any_alive() const override { return !alive_.empty(); }
  using Backend::measurement;
  Measurement measurement(const CodeOf& code) const override;
  void merge_ended(std::size_t most) override;
  std::vector<ProcessCopies> take_ended() override;

 private:
  struct Process;
  struct Scan;
  // Numbers of /proc/PID/stat that change when a process's pages do.
  using Activity = std::array<std::uint64_t, 3>;
  // Pages of a parent that a fork shares.
  struct ParentPages {
    std::shared_ptr<const PageRanges> anonymous;
    std::uint64_t arena_bytes = 0;
    Activity activity{};
    std::uint64_t scanned_ns = 0;
  };

  // The search for processes.
  void find_processes();
  void update(Process& process);
  void end(Process& process, bool is_zombie);
  void find_children(Process& process);
  Process& add(pid_t pid, const ProcStat& stat, const std::shared_ptr<Process>& parent);
  void inherit_pages(Process& child, const ProcStat& stat);
  const ParentPages& parent_pages(pid_t pid, const Activity& activity);
  PageRanges read_anonymous_pages(pid_t pid, std::uint64_t& arena_bytes);
  void count_missed();

  // Scans of memory.
  void scan_memory();
  std::vector<Process*> due_for_scan() const;
  void scan(Process& process);
  Scan begin_scan(const Process& process, ProcessPages& pages,
                  const std::vector<Mapping>& mappings);

  // Results.
  bool is_counted_fork(const Process& process) const;
  ProcessesNotSeen not_seen() const;
  std::vector<std::shared_ptr<Process>> in_order() const;
  void mark_forgotten(Process& process);
  void erase_forgotten();

  ProcFiles proc_;
  std::vector<std::shared_ptr<Process>> processes_;  // in order of discovery
  std::map<pid_t, Process*> alive_;
  std::map<pid_t, ParentPages> parent_pages_;
  std::uint64_t samples_ = 0;
  std::uint64_t sampling_ns_ = 0;
  std::uint64_t finding_ns_ = 0;  // the cost of the last search for processes
  internal::DutyCycle scans_;
  TreeMemoryMeter memory_;
  AlikeMeter alike_;
  MemoryCgroups cgroups_;

  // Processes not seen.
  std::uint64_t missed_ = 0;
  std::optional<std::uint64_t> forks_before_;  // on this machine, before the measurement
  std::uint64_t forgotten_forks_ = 0;          // forgotten processes that started since
  std::vector<std::shared_ptr<Process>> zombies_;
  // In this search: parents that have waited for a child, and whether a seen process is gone.
  std::uint64_t reapers_ = 0;
  bool some_gone_ = false;
  bool some_gone_before_ = false;  // in the last search
};

}  // namespace cowshed::cow
