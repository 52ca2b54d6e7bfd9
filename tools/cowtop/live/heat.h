#pragma once

#include <string>
#include <vector>

#include <cowshed/cow/sampled_copies.h>

namespace cowshed::cowtop::live {

struct HeatStrip {
  std::string mapping;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  // In order of addresses, those left out that were not sampled: how much of each part's pages was
  // copied, estimated; 1: every page.
  std::vector<double> heat;
};

// Of the mappings of one process, the most copied first, at most so many, in so many parts each.
std::vector<HeatStrip> heat_strips(const cow::SampledCopies& sampled, std::size_t most,
                                   std::size_t parts);

}  // namespace cowshed::cowtop::live
