#pragma once

// Room cow/arenas: finds the frozen arenas among mappings, and the published objects that were
// copied.  May use base, cow, cow/proc.

#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// A private mapping that holds pages of a frozen arena; an arena with generations has several.
struct FrozenArena {
  std::string name;
  const Mapping* mapping = nullptr;
};

// Those among the process's `mappings`, which must outlive the result.  A memfd tells the arena's
// name itself, for the file of an image the process's published layout is read.
std::vector<FrozenArena> frozen_arenas(const ProcFiles& proc, pid_t pid,
                                       const std::vector<Mapping>& mappings);

// The entry of that name, made where there is none.
ArenaCopies& arena_named(std::vector<ArenaCopies>& arenas, const std::string& name);

}  // namespace cowshed::cow
