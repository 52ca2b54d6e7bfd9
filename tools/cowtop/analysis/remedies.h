#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/tools/cowtop/analysis/remedy.h>

// What to do, in one list: the report, `cowtop help`, `cowtop cure` and the tables of the pages are
// made from it.
namespace cowshed::cowtop {

// In the order of the pages and of cure: the least intrusive last.
const std::vector<Remedy>& remedies();

// Whether the remedy is for programs in the language.
bool is_for(const Remedy& remedy, cow::Language language);

// "in Ruby, R: call GC.compact", a line for each remedy of a cause; of an only one its text.
std::vector<std::string> remedy_lines(std::string_view cause);

// A remedy that the evidence of a measurement supports.
struct Advice {
  const Remedy* remedy;
  std::string text;
  std::uint64_t saves_bytes = 0;  // at most; 0: nothing by itself
  bool is_known = true;           // as Offer::is_known: else no report says how much it saves
  bool is_urgent = false;         // as Offer::is_urgent: before all others
  std::size_t rank = 0;           // 0: the first of the report's
};

// The most saving first, and second how to get the names that CODE lacks.  Empty where little was
// copied, or the evidence supports no remedy.
std::vector<Advice> advise(const cow::Measurement& measurement, const Summary& summary);

// Those that the evidence supports.  `language`: of the command, where the measurement does not
// tell.  `folder`: where the caller puts their files.
std::vector<Cure> cures_for(const Evidence& evidence, cow::Language language,
                            std::string_view folder = "/tmp/FOLDER");

}  // namespace cowshed::cowtop
