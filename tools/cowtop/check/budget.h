#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// The limits on the copies and the new memory of a measured process tree.
struct Budget {
  // Limits apply to each process below the root, or to the sum of all processes with the root.
  enum class Per : std::uint8_t { child, tree };
  struct Object {
    std::string name;
    std::uint64_t bytes = 0;
    bool operator==(const Object&) const = default;
  };

  Per per = Per::child;
  std::optional<std::uint64_t> max_copied_bytes;
  // Copied before an exec, as a part of the memory shared at the fork.  Only for processes that
  // shared at least 1 MiB.
  std::optional<double> max_ratio;
  // What a process below the root may have of its own that is new (ForkCopies::new_bytes).
  std::optional<std::uint64_t> max_new_bytes;
  // What any process may have of its own, the root among them (ForkCopies::most_own_bytes).
  std::optional<std::uint64_t> max_own_bytes;
  // What all together may hold that others of them hold byte for byte, too (AlikeMemory).
  std::optional<std::uint64_t> max_alike_bytes;
  // Copied bytes of published objects, for each process with the root, or for all together.
  std::vector<Object> objects;
  // The growth of the sum since an earlier measurement: a recording or a JSON report.
  std::string baseline;  // path; empty: none
  std::optional<double> max_growth;
};

bool is_unit(std::string_view text);  // such as "MiB"
// Parses "64MiB", "1.5 GiB", "512KiB" or bytes: "4096".  Errors: invalid_argument.
Expected<std::uint64_t> parse_size(std::string_view text);
// Parses "5%" as 0.05.  Errors: invalid_argument.
Expected<double> parse_percentage(std::string_view text);
// Parses "NAME=SIZE", where NAME may contain '='.  Errors: invalid_argument.
Expected<Budget::Object> parse_object(std::string_view text);

// Returns why the budget is invalid: it has no limit, or one option lacks its counterpart.  Empty
// if it is valid.
std::string what_is_wrong_with(const Budget& budget);

}  // namespace cowshed::cowtop
