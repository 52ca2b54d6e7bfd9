#pragma once

#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/proc/process_pages.h>

namespace cowshed::cow {

// Samples the memory of a process with these `mappings`; nullopt if it cannot be read or has ended.
// base/pagemap.h states the cost.
std::optional<MemorySample> sample_memory(const ProcFiles& proc, pid_t pid,
                                          const std::vector<Mapping>& mappings);

// Adds a mapping of the sampled process, with its anonymous pages `here`.
void add_mapping(MemorySample& sample, const Mapping& mapping, const AnonymousPages& here,
                 const std::vector<FrozenArena>& frozen);

// Returns the sample with the time; nullopt if it is empty, as of a process that has ended.
std::optional<MemorySample> finished(MemorySample sample);

}  // namespace cowshed::cow
