#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/check/budget.h>

namespace cowshed::cowtop {

enum class Limit : std::uint8_t { copied, ratio, object, growth };
std::string_view name_of(Limit limit);  // "max_copied", as in a budget file

// What is known of whose copies they are.
struct Culprit {
  enum class Kind : std::uint8_t { process, object, site, mapping };
  Kind kind = Kind::process;
  std::string name;
  std::uint64_t bytes = 0;
  bool is_estimate = false;
  std::string file = {};  // of a site, where it is known
  int line = 0;
};
std::string_view name_of(Culprit::Kind kind);

// One limit, and one process or all that are held to it.
struct Held {
  Limit limit = Limit::copied;
  std::string object;        // the limit's, of Limit::object
  std::optional<pid_t> pid;  // nullopt: the tree
  std::string comm;          // the process's
  std::size_t number = 0;    // 1 is the first process below the root, 0 the root
  std::uint64_t limit_bytes = 0;
  std::optional<std::uint64_t> used_bytes;  // nullopt: not known
  std::string why_not_known;
  std::uint64_t of_bytes = 0;     // what was shared at the fork, or the baseline's copies
  std::vector<Culprit> culprits;  // of what is over

  bool is_over() const { return used_bytes.value_or(0) > limit_bytes; }
};

struct Verdict {
  std::vector<Held> held;
  std::vector<std::string> not_measured;  // limits to which nothing could be held at all, and why
  std::vector<std::string> notes;  // what is not known, and so is in none of the figures, else

  bool is_over() const;
};

// What reports make of what is over, or of a limit to which nothing could be held.
enum class Severity : std::uint8_t { error, warning };

// What an earlier measurement is to this one.
struct Baseline {
  std::uint64_t copied_bytes = 0;  // by all, where it is known
  std::string backend;
  std::vector<std::string> notes;
};

// Holds the measurement to the budget.  `baseline` has to be there where the budget has one.
// `published`: names of objects that were seen, besides those in the measurement.  An object of
// another name is not_measured.
Verdict verdict_on(const cow::Measurement& measurement, const Budget& budget,
                   const std::optional<Baseline>& baseline, std::set<std::string> published);

}  // namespace cowshed::cowtop
