#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/analysis/findings.h>

namespace cowshed::cowtop {

// What has used up a limit: the largest objects, sites and mappings, together at most `used`.
// `limited`: the name of the object that is limited; empty: all count.
std::vector<Finding> culprits_of(const cow::Measurement& measurement,
                                 const cow::ProcessCopies& process, const cow::ForkCopies& copies,
                                 std::uint64_t used, const std::string& limited);

// Of all processes together.  `parts`: what each used.
std::vector<Finding> culprits_of_all(const cow::Measurement& measurement,
                                     std::vector<Finding> parts, std::uint64_t used,
                                     const std::string& limited);

// New memory is sampled of all children together: of what one of them has, as of all.
std::vector<Finding> culprits_of_new(const cow::Measurement& measurement, std::uint64_t new_bytes,
                                     std::uint64_t unfaulted_bytes);

}  // namespace cowshed::cowtop
