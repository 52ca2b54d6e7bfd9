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

// Returns the pages of frozen arenas that a process has copied or inherited as copies.  Both return
// none if its memory cannot be read.
PageRanges private_arena_pages(const ProcFiles& proc, pid_t pid);
// Returns the frozen arenas with pages that the process has copied.  `inherited` are the pages that
// it inherited as copies.  `parent` is 0 if the parent has ended or is not measured.
std::vector<CopiedArena> copied_arenas(const ProcFiles& proc, pid_t pid,
                                       const std::vector<Mapping>& mappings,
                                       const PageRanges& inherited, pid_t parent);

// Returns the published objects of these arenas, in the layout's order, with the copied pages that
// each overlaps.  Objects without a name are added up by type.  A page of two objects counts for
// both.  keep_most_copied() applies.
std::vector<ObjectCopies> copies_by_object(const PublishedLayout& layout,
                                           const std::vector<CopiedArena>& arenas);

// Returns the same from the process's layout, which it reads only if there are `arenas`.  nullopt:
// the layout cannot be read.
std::optional<std::vector<ObjectCopies>> copies_by_object(const ProcFiles& proc, pid_t pid,
                                                          const std::vector<Mapping>& mappings,
                                                          const std::vector<CopiedArena>& arenas);

}  // namespace cowshed::cow
