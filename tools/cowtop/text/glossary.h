#pragma once

#include <string_view>
#include <vector>

namespace cowshed::cowtop {

// A word of the reports, as they write it, and what it means.
struct Term {
  std::string_view word;
  std::string_view meaning;
  bool is_column = false;  // of the report with every count
};

// In the order of the reports.
const std::vector<Term>& glossary();

// The term that `word` names, in any case, with or without its brackets; "import" also by "import
// of shop".  Null: there is none.
const Term* find_term(std::string_view word);

}  // namespace cowshed::cowtop
