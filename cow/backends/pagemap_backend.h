#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/backend.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// Measures by sampling /proc, without privilege, for processes that the caller may ptrace.
//
// What it knows: the pages that a process shared with its parent when it was first seen and that
// now belong to it alone while the parent has its own; and, exactly as of each look, the written
// pages of private file mappings, frozen arenas among them.  What it cannot know: which side of a
// fork made the copy, pages copied after the last look or freed before the next, and every class of
// fault that copies nothing.  Processes that end before they are seen are counted
// (Measurement::not_seen).
//
// What it costs: a look at a process, in proportion to its memory, by base/pagemap.h.  Searching
// for processes and looking at them each take at most a tenth of one CPU, however many there are:
// then each is looked at less often, and its figures are older (Measurement::memory_age_s).  Those
// that had page faults, or whose parent or children had, go first; the others are looked at no more
// than once a second.
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
  bool any_alive() const override;
  using Backend::measurement;
  Measurement measurement(const CodeOf& code) const override;
  void merge_ended(std::size_t most) override;
  std::vector<ProcessCopies> take_ended() override;

 private:
  struct Tracked;
  // What changes when a process's pages do.
  struct Activity {
    explicit Activity(const ProcStat& stat);
    bool operator==(const Activity&) const = default;

    std::uint64_t faults;
    std::uint64_t virtual_bytes;
    std::uint64_t resident_pages;
  };
  // What a child can share of a parent.
  struct Shareable {
    std::shared_ptr<const PageRanges> anonymous;
    std::uint64_t arena_bytes = 0;
    Activity activity;
    std::uint64_t sampled_ns = 0;
  };

  void find_processes();
  void find_children(Tracked& process);
  void count_reaped();
  Tracked& add(pid_t pid, const ProcStat& stat, const std::shared_ptr<Tracked>& parent);
  void update(Tracked& process);
  void end(Tracked& process, bool is_zombie);
  void take(Tracked& process);
  void forget_taken();
  std::vector<std::shared_ptr<Tracked>> in_order() const;
  void look_at_memory();
  void look_at_memory(Tracked& process);
  const Shareable& shareable_of(pid_t pid, const Activity& activity);
  bool is_counted_fork(const Tracked& process) const;
  ProcessesNotSeen not_seen() const;

  ProcFiles proc_;
  std::vector<std::shared_ptr<Tracked>> processes_;  // in order of discovery
  std::map<pid_t, Tracked*> alive_;
  std::map<pid_t, Shareable> shareable_;
  std::uint64_t samples_ = 0;
  std::uint64_t sampling_ns_ = 0;
  std::uint64_t finding_ns_ = 0;  // what the last search for processes cost
  DutyCycle looks_;               // at memory

  // Processes not seen.
  std::uint64_t not_seen_ = 0;
  std::optional<std::uint64_t> forks_before_;
  std::uint64_t seen_and_taken_ = 0;  // started while we measured
  std::vector<std::shared_ptr<Tracked>> zombies_;
  std::uint64_t reapers_ = 0;  // in this search: whose count of its children's faults has grown
  bool some_gone_ = false;     // in this search: a process that was seen is gone for good
  bool some_gone_before_ = false;
};

}  // namespace cowshed::cow
