#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/text/causes.h>

namespace cowshed::cowtop {

// A remedy that the evidence of a measurement supports.
struct Advice {
  std::string text;               // imperative, in a line
  std::uint64_t saves_bytes = 0;  // at most; 0: nothing by itself
};

// What a remedy must save to be worth a word: a fifth of all, and kLeastBytes.
bool is_much(std::uint64_t bytes, std::uint64_t all);

// The most saving first, and second how to get the names that CODE lacks.  Empty where little was
// copied, or the evidence supports no remedy.
std::vector<Advice> advise(const cow::Measurement& measurement, const Summary& summary);

}  // namespace cowshed::cowtop
