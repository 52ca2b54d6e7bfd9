#pragma once

#include <optional>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/arenas/published_layout.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// The pages of a frozen arena that a process has copied.
struct CopiedArena {
  const Mapping* mapping = nullptr;
  PageRanges pages;
};

// Every published object of these arenas, with the copied pages that it overlaps, in the layout's
// order.  Those without a name are one for each type.  A page that two of these share counts for
// each.
std::vector<ObjectCopies> copies_by_object(const PublishedLayout& layout,
                                           const std::vector<CopiedArena>& arenas);

// The same from the process's own layout, which is not looked for when there are no `arenas`.
// nullopt when it cannot be read.
std::optional<std::vector<ObjectCopies>> copies_by_object(const ProcFiles& proc, pid_t pid,
                                                          const std::vector<Mapping>& mappings,
                                                          const std::vector<CopiedArena>& arenas);

// What the process says that it has sent; nullopt when it says nothing.
std::optional<std::vector<SentObjects>> sent_objects(const ProcFiles& proc, pid_t pid,
                                                     const std::vector<Mapping>& mappings);

}  // namespace cowshed::cow
