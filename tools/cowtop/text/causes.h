#pragma once

#include <string>
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

// "libsqlite3 (page cache)", "libfoo.so.1"; of a program, only if it is known what it holds.
std::string library_in_words(std::string_view library);

// "reference count: reads write to the object's header".  `library`: it wrote, if that is known.  A
// recording may have other names.
std::string cause_in_words(std::string_view name, std::string_view library);

}  // namespace cowshed::cowtop
