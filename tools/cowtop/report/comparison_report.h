#pragma once

#include <string>

#include <cowshed/tools/cowtop/analysis/comparison.h>

namespace cowshed::cowtop {

// The two sides, as they are to be called.
struct ComparedNames {
  std::string before;
  std::string after;
};

// For people: what changed, the most changed first, of many the first 20.
std::string comparison_table(const Comparison& comparison, const ComparedNames& names);

// For programs, schema cowshed.diff/1: all of it.
std::string comparison_json(const Comparison& comparison, const ComparedNames& names);

}  // namespace cowshed::cowtop
