#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/proc/process_pages.h>

namespace cowshed::cow {

// The bytes of private mappings that are still their file's, by the mappings' addresses.
using FilePages = std::map<std::uint64_t, std::uint64_t>;

// Samples the memory of a process with these `mappings`, and fills `file_pages`; nullopt if it
// cannot be read or has ended.  base/pagemap.h states the cost.
std::optional<MemorySample> sample_memory(const ProcFiles& proc, pid_t pid,
                                          const std::vector<Mapping>& mappings,
                                          FilePages& file_pages);

// Sets its title and its script, if it runs and has them.
void read_names(const ProcFiles& proc, ProcessCopies& process);

// Samples the memory of a process whose mappings, which must outlive it, the caller walks through.
class MemorySampler {
 public:
  MemorySampler(const ProcFiles& proc, pid_t pid, const std::vector<Mapping>& mappings);

  // Adds a mapping with its anonymous pages `here`.
  void add(const Mapping& mapping, const AnonymousPages& here);
  const std::vector<FrozenArena>& frozen() const { return frozen_; }
  // Returns the sample with the time; nullopt if it is empty, as of a process that has ended.
  std::optional<MemorySample> finish() const;

 private:
  std::vector<FrozenArena> frozen_;
  std::uint64_t settled_bytes_;  // less what is anonymous of them
  MemorySample sample_;
};

}  // namespace cowshed::cow
