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
  std::uint64_t begin = 0;  // addresses at end()
  std::uint64_t end = 0;
  std::string name;   // "[heap]", "[stack]", "anonymous", a file's path
  std::string arena;  // its frozen arena; empty: none
  bool has_file = false;
  PageRanges pages;  // the copied ones
};

// The result of a Meter.  A value: it owns its data and may cross threads.
//
// A page is copied if it was shared at begin(), is private at end(), and a sharer still has the old
// page.  In a private mapping of a file it is copied if it was unwritten at begin() and is written
// at end(); this count is exact.  For memory shared by fork, pagemap does not tell which side
// copied:
// - bytes() counts all such pages.
// - at_least_bytes() assumes that each page fault of a sharer in the region was one of the copies.
// - at_most_bytes() adds copies that are hidden because the sharer ended or dropped its page, or
//   because a fork in the region shared the copy again, as many as the process's own page faults
//   allow.
struct MeterResult {
  pid_t pid = 0;
  std::string region;                   // the measured part of the process; empty: all
  std::vector<CopiedMapping> mappings;  // mappings with copies, most first
  // Pages that are private now because no sharer has them any more.
  PageRanges left_alone;
  // Pages that were shared at begin() and at end(), if there was a fork between: perhaps copies.
  PageRanges shared_again;
  std::vector<PublishedObject> objects;  // all objects in frozen arenas
  std::vector<std::string> unknown;      // figures that are unknown, a line each
  // Minor page faults in the region, of this process and of the processes that it shares with.
  std::uint64_t own_faults = 0;
  std::uint64_t faults_of_others = 0;

  // Memory of the whole process that was shared by fork or in frozen arenas at begin().  It is the
  // sum of the copied bytes (without other files), left_alone and the next two.
  std::uint64_t shared_at_begin_bytes = 0;
  std::uint64_t still_shared_bytes = 0;
  std::uint64_t dropped_bytes = 0;  // unmapped, moved, freed or swapped out
  // Private at begin() and shared at end(), by a fork in the region.  Copies after that fork are
  // unknown.
  std::uint64_t newly_shared_bytes = 0;

  std::uint64_t bytes() const;
  std::uint64_t at_least_bytes() const;
  std::uint64_t at_most_bytes() const;
  // Copied bytes of the pages of `object`.  A page with several objects counts for each.
  std::uint64_t bytes_of(const PublishedObject& object) const;

  // Returns the part of the result in the pages of [address, address + bytes).
  MeterResult within(const void* address, std::size_t bytes) const;
  // Returns the part in the pages of a published object itself; of a container that excludes its
  // elements.  Errors: not_published.
  Expected<MeterResult> of_object(std::string_view name) const;
};

// Returns text for people: a line for the total, one per copied object and mapping, with the
// largest address ranges, and one per unknown figure.
std::string to_text(const MeterResult& copied);

}  // namespace cowshed::cow
