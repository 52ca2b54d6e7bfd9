#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include <cowshed/cow/causes/store_sites.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/profile/tallies.h>
#include <cowshed/cow/symbolize/symbolizer.h>

// What reports show of tallies, with names.  One thread at a time.
namespace cowshed::cow {

// The copied pages of each process, by the probe's ID.
using CopiedPages = std::map<std::uint64_t, std::uint64_t>;

// Return the most frequent entries of each kind, for one process or for all; every stack for one
// process, with its cause of `causes`.  Estimates spread `copies` over the samples.
SampledCopies profile_of(std::uint64_t process_id, const Tallies& tallies,
                         const CopiedPages& copies, Symbolizer& symbols,
                         const StoreSites::Causes& causes = {});
SampledCopies profile_of_all(const Tallies& tallies, const CopiedPages& copies,
                             Symbolizer& symbols);
// Of samples of new memory, by what each process holds.
NewMemory new_memory_of(const Tallies& tallies, const std::map<std::uint64_t, HeldPages>& pages,
                        Symbolizer& symbols);

// Returns the samples of one process below functions that end the program, if they are not those
// below which it was forked.
std::vector<StoreSites::AtExit> samples_at_exit(std::uint64_t process_id, const Tallies& tallies,
                                                Symbolizer& symbols);

}  // namespace cowshed::cow
