#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/published_object.h>

namespace cowshed::cow {

// The copies in one mapping of a process.
struct CopiedMapping {
  std::uint64_t begin = 0;  // as it was at the end
  std::uint64_t end = 0;
  std::string name;   // "[heap]", "[stack]", "anonymous", a file's path
  std::string arena;  // the frozen arena that it belongs to; empty: to none
  bool has_file = false;
  PageRanges pages;  // that were copied
};

// What a Meter found.  A value: copyable, owning, free to cross threads.
//
// Copied means: shared at begin() and not any more at end(), while a process that shared it still
// has its page; or, of a private mapping of a file (a library's data, a lenient arena), not written
// at begin() and written at end(), whether it had been read or not.  That is exact for files.  Of
// memory shared by fork, who of the two made the copy does not show: bytes() counts it all,
// at_least_bytes() what remains if every page fault of the others in the region was a copy of it.
// And where the others have ended or dropped their pages, copies made before do not show:
// at_most_bytes() counts as many as the process's own page faults allow.
struct MeterResult {
  pid_t pid = 0;
  std::string region;                   // what of the process this is about; empty: all of it
  std::vector<CopiedMapping> mappings;  // those with copies, most first
  // Not shared any more, and nobody who shared it has it.
  PageRanges left_alone;
  std::vector<PublishedObject> objects;  // all that lie in frozen arenas, by the program's layout
  std::vector<std::string> unknown;      // what could not be known here, a line each
  // Page faults in the region that the kernel served without reading: of this process, and of those
  // that it shares memory with.
  std::uint64_t own_faults = 0;
  std::uint64_t faults_of_others = 0;

  // Of the whole process, at begin(): shared by fork, and in frozen arenas.  That is the sum of
  // what is copied (but for other files), left alone, and the next two.
  std::uint64_t shared_at_begin_bytes = 0;
  std::uint64_t still_shared_bytes = 0;
  std::uint64_t dropped_bytes = 0;  // unmapped, moved, given back to the kernel, or swapped out
  // Not shared at begin(), and shared at end(): by a fork in the region.  Such a page that was
  // copied after that fork does not show.
  std::uint64_t newly_shared_bytes = 0;

  std::uint64_t bytes() const;
  std::uint64_t at_least_bytes() const;
  std::uint64_t at_most_bytes() const;
  // A page that objects share counts for each.
  std::uint64_t bytes_of(const PublishedObject& object) const;

  // Those pages that overlap [address, address + bytes).
  MeterResult within(const void* address, std::size_t bytes) const;
  // Those that overlap the published object.  Errors: not_published.
  Expected<MeterResult> of_object(std::string_view name) const;
};

// For people: a line for the whole, then one for each object and mapping of which pages were
// copied, with the largest ranges of addresses, and for each thing that is not known.
std::string to_text(const MeterResult& copied);

}  // namespace cowshed::cow
