#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// The most that a measured process tree may copy.
struct Budget {
  // Who is held to it: each process below the root by itself, or all together, the root among them.
  enum class Per : std::uint8_t { child, tree };
  struct Object {
    std::string name;
    std::uint64_t bytes = 0;
    bool operator==(const Object&) const = default;
  };

  Per per = Per::child;
  std::optional<std::uint64_t> max_copied_bytes;
  // Of what was shared at the fork, copied before an exec; of who shared at least 1 MiB.
  std::optional<double> max_ratio;
  // Copied bytes of published objects, of each process, the root among them, or of all together.
  std::vector<Object> objects;
  // What all together may copy more than in an earlier measurement: a recording, or a JSON report.
  std::string baseline;  // path; empty: none
  std::optional<double> max_growth;
};

// "64MiB", "1.5GiB", "512KiB", or whole bytes: "4096".  Errors: invalid_argument.
Expected<std::uint64_t> parse_size(std::string_view text);
// "5%" is 0.05.  Errors: invalid_argument.
Expected<double> parse_percentage(std::string_view text);
// "NAME=SIZE"; the name may hold any other '='.  Errors: invalid_argument.
Expected<Budget::Object> parse_object(std::string_view text);

// Why it cannot be held to: it limits nothing, or half of what belongs together is missing.  Empty
// where it can.
std::string what_is_wrong_with(const Budget& budget);

}  // namespace cowshed::cowtop
