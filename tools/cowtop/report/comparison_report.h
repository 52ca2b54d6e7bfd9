#pragma once

#include <string>

#include <cowshed/tools/cowtop/analysis/comparison.h>

namespace cowshed::cowtop {

// The names of the two sides.
struct ComparedNames {
  std::string before;
  std::string after;
};

// Returns text for people: at most 20 changes of each kind, the largest first.
std::string comparison_table(const Comparison& comparison, const ComparedNames& names);

// Returns all changes as JSON, schema cowshed.diff/1.
std::string comparison_json(const Comparison& comparison, const ComparedNames& names);

}  // namespace cowshed::cowtop
