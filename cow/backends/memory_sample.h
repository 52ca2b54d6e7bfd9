#pragma once

#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/pagemap.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// Of a process, whose `mappings` these are; nullopt when it may not be looked at, or has ended.
// Costs what base/pagemap.h says of visit_anonymous_pages().
std::optional<MemorySample> sample_memory(const ProcFiles& proc, pid_t pid,
                                          const std::vector<Mapping>& mappings);

// Adds one of the mappings of the sampled process, whose anonymous pages are `here`.
void add_mapping(MemorySample& sample, const Mapping& mapping, const AnonymousPages& here,
                 const std::vector<FrozenArena>& frozen);

// With the time; nullopt when nothing was found: a scan of memory that is gone finds nothing, and
// says nothing of it.
std::optional<MemorySample> finished(MemorySample sample);

}  // namespace cowshed::cow
