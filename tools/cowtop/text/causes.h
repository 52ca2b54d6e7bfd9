#pragma once

#include <string_view>
#include <vector>

// What cowtop says of each cause of copies, in the report and in `cowtop help`.
// analysis/remedies.h says what to do.
namespace cowshed::cowtop {

struct Cause {
  std::string_view name;      // as cow/causes gives it
  std::string_view in_words;  // beside the name, in a few words
  std::string_view meaning;   // for `cowtop help`
};

// In the order of `cowtop help`.
const std::vector<Cause>& causes();

// Null: no cause has this name.
const Cause* find_cause(std::string_view name);

}  // namespace cowshed::cowtop
