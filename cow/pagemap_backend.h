#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <cowshed/cow/backend.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc_files.h>

namespace cowshed::cow {

// Measures by sampling /proc, without privilege, for processes that the caller may ptrace.
//
// What it knows: the pages that a process shared with its parent when it was first seen and that
// now belong to it alone while the parent has its own; and, exactly as of each sample, the written
// pages of private file mappings, frozen arenas among them.  What it cannot know: which side of a
// fork made the copy, pages copied after the last sample or freed before the next, processes that
// live for less than the interval, and every class of fault that copies nothing.
class PagemapBackend : public Backend {
 public:
  explicit PagemapBackend(ProcFiles proc = ProcFiles());
  ~PagemapBackend() override;

  std::string_view name() const override { return "pagemap"; }
  bool exact() const override { return false; }
  Expected<void> track_command(pid_t child) override;
  Expected<int> attach(pid_t root) override;
  Expected<void> sample() override;
  std::chrono::milliseconds interval() const override;
  bool any_alive() const override;
  Measurement measurement() const override;

 private:
  struct Tracked;
  struct Resident {
    PageRanges anonymous;
    std::uint64_t arena_bytes = 0;
  };

  void find_children();
  void add(pid_t pid, const ProcStat& stat, Tracked* parent);
  void update(Tracked& process);
  void look_at_memory(Tracked& process);
  void forget_memory(Tracked& process);
  const Resident& parent_memory(pid_t pid);

  ProcFiles proc_;
  std::vector<std::unique_ptr<Tracked>> processes_;  // in order of discovery
  std::map<pid_t, Tracked*> alive_;
  std::uint64_t started_ns_;
  std::uint64_t samples_ = 0;
  std::uint64_t sampling_ns_ = 0;
  std::uint64_t finding_ns_ = 0;       // what the last search for children cost
  std::map<pid_t, Resident> parents_;  // as of this sample, for all their children
};

}  // namespace cowshed::cow
