#pragma once

#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/proc_files.h>
#include <cowshed/cow/process_copies.h>

namespace cowshed::cow {

// Of a process, whose `mappings` these are; nullopt when it may not be looked at, or has ended.
// Costs what base/pagemap.h says of visit_anonymous_pages().
std::optional<MemorySample> sample_memory(const ProcFiles& proc, pid_t pid,
                                          const std::vector<Mapping>& mappings);

}  // namespace cowshed::cow
