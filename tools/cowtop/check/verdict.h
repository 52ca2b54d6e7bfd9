#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/cow/measurement.h>
#include <cowshed/tools/cowtop/analysis/findings.h>
#include <cowshed/tools/cowtop/check/budget.h>

namespace cowshed::cowtop {

enum class Limit : std::uint8_t { copied, ratio, fresh, own, alike, object, growth };
std::string_view name_of(Limit limit);  // "max_copied", as in a budget file

// One limit applied to one process, or to the tree.
struct Held {
  Limit limit = Limit::copied;
  std::string object;        // name, for Limit::object
  std::optional<pid_t> pid;  // nullopt: the tree
  std::string comm;          // of the process
  bool only_ran = false;     // executed a program, and shares no memory
  // 1 is the first process below the root of that name and `only_ran`, 0 the root.
  std::size_t number = 0;
  std::uint64_t limit_bytes = 0;
  std::optional<std::uint64_t> used_bytes;  // nullopt: unknown
  std::string why_not_known;
  std::uint64_t of_bytes = 0;  // shared at the fork, or copied in the baseline
  // If over the limit: processes, objects, sites and mappings that have much of it, at most all.
  std::vector<Finding> culprits;

  bool is_over() const { return used_bytes.value_or(0) > limit_bytes; }
};

struct Verdict {
  std::vector<Held> held;
  std::vector<std::string> not_measured;  // limits that could not be judged, and why
  std::vector<std::string> notes;         // other unknown figures

  bool is_over() const;
};

// How reports show an exceeded limit, or a limit that could not be judged.
enum class Severity : std::uint8_t { error, warning };

// The figures of an earlier measurement to compare with.
struct Baseline {
  std::uint64_t copied_bytes = 0;  // by all processes with known copies
  std::string backend;
  std::vector<std::string> notes;
};

// Judges a measurement by a budget.  `baseline` is required if the budget has one.  `published`
// adds names of objects to those in the measurement.  A limit for any other object is not_measured.
Verdict verdict_on(const cow::Measurement& measurement, const Budget& budget,
                   const std::optional<Baseline>& baseline, std::set<std::string> published);

}  // namespace cowshed::cowtop
