#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/backends/memory_sample.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/probes/counts.h>

namespace cowshed::cow {

// A process that the probes count, with what /proc adds to its counts.  A figure that cannot be
// read stays as it was.  A parent is nullptr if it is not measured.  One thread at a time.
struct TracedProcess {
  // The state until one sample() after its end.
  struct Live {
    ProcessCounts counts;                       // as of the last sample()
    internal::DutyCycle scans{50, 50'000'000};  // of its memory
    std::uint64_t last_scan_ns = 0;
    std::uint64_t updates = 0;
    bool has_settled = false;  // memory, at the last scan
    bool has_changed = true;   // has counted something since the last scan, or shortly before
    std::uint64_t changed_ns = 0;
    bool sends = false;       // it, or a parent that forked it, has counted what it sent
    bool had_ended = false;   // at the sample() before
    bool was_gone = false;    // before the last snapshot, as all were
    PageRanges inherited;     // pages of frozen arenas that the parent had copied
    PageRanges for_children;  // such pages of its own, read in the sample()
    std::uint64_t for_children_read = 0;  // of this number
    std::uint64_t object_pages = 0;       // copied pages of arenas when `objects` was read
    // The names of arenas by the addresses of their mappings; empty for a file that is no arena.
    std::map<std::uint64_t, std::string> arena_names;
    std::optional<FilePages> file_pages;  // at the last scan
    std::string system_call;              // in which it was found asleep for its parent's lock
    std::uint64_t system_call_ns = 0;     // when it was last looked for
  };
  ProcessCopies copies;
  std::unique_ptr<Live> live;  // null: nothing more of it is to come

  // Takes the counts of a snapshot.  The first call also reads what the process got at its fork.
  // `sample` numbers the snapshots.
  void update(const ProcessCounts& counts, TracedProcess* parent, const ProcFiles& proc,
              std::uint64_t sample);
  // Reads the copied objects if they may have changed.
  void read_objects(const TracedProcess* parent, const ProcFiles& proc);
  // Whether its memory may be scanned now.
  bool is_due_for_scan(std::uint64_t now_ns) const;
  // Reads its memory, by a walk through its maps and pagemap, and the objects that it sent.
  // Returns the maps; empty: its memory could not be read.
  std::vector<Mapping> scan(const ProcFiles& proc);
  // Looks, every few seconds, whether it sleeps for ever.  Only a child whose parent forks beside
  // threads is asked.
  void look_for_lock(const TracedProcess& parent, const ProcFiles& proc);
  // `is_settled`: it had counted nothing for a while.  Else it is scanned again once it is so: what
  // it frees meanwhile is not counted.
  void note_scan(std::uint64_t end_ns, std::uint64_t took_ns, bool is_settled);
};

}  // namespace cowshed::cow
