#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/cow/language.h>

// What cowtop says of each cause of copies: in the report, in `cowtop help`, and in
// docs/how-to/memory-grows-after-fork.md, which a test compares.
namespace cowshed::cowtop {

using cow::Language;

// What to do against a cause: imperative, in a line.
struct Remedy {
  std::vector<Language> in;  // empty: in all others
  std::string_view text;
};

// Whose code writes: the program's own, which only its authors can change, or another's.
enum class Code : std::uint8_t { own, others };

struct Cause {
  std::string_view name;  // as cow/causes gives it
  Code code;
  std::string_view in_words;  // beside the name, in a few words
  std::string_view meaning;   // for `cowtop help`
  std::vector<Remedy> remedies;
};

// In the order of `cowtop help`.
const std::vector<Cause>& causes();

// Null: no cause has this name.
const Cause* find_cause(std::string_view name);

// Of a cause with several remedies for one language, the first.
std::string_view remedy_for(std::string_view cause, Language language);

// "in Ruby, R: call GC.compact", a line for each remedy of a cause; of an only one its text.
std::vector<std::string> remedy_lines(const Cause& cause);

}  // namespace cowshed::cowtop
