#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// A private mapping of a frozen arena.  An arena with generations has several.
struct FrozenArena {
  std::string name;
  const Mapping* mapping = nullptr;
};

// Returns the frozen arenas among the process's `mappings`, which must outlive the result.  A memfd
// has the arena's name.  For the file of an image it reads the process's published layout.
std::vector<FrozenArena> frozen_arenas(const ProcFiles& proc, pid_t pid,
                                       const std::vector<Mapping>& mappings);

// Returns the entry of that name, and adds it if there is none.  After as many arenas as a process
// can have, further names share one entry.
ArenaCopies& arena_named(std::vector<ArenaCopies>& arenas, const std::string& name);

}  // namespace cowshed::cow
