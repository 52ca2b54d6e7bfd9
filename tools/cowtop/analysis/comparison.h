#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// What one measurement copied and another did not.
struct Change {
  std::string name;
  // Pages copied; nullopt: not known, or, of a process, that there was none.
  std::optional<std::uint64_t> before;
  std::optional<std::uint64_t> after;
  bool is_known = true;  // on both sides; a process that was not there copied nothing

  // What it grew by; nullopt where that is not known.
  std::optional<std::int64_t> growth() const;
};

// Each list is of what is on either side, the most changed first.
struct Comparison {
  // Of the processes whose copies are known.  Its growth is known where these are the same ones on
  // both sides.
  Change total;
  // Processes whose copies are not known: in no total.
  std::uint64_t not_known_before = 0;
  std::uint64_t not_known_after = 0;
  // Matched by their place in the tree: "server/worker[2]" is the second child of that name.
  std::vector<Change> processes;
  std::vector<Change> objects;  // of all processes: "ARENA/NAME (TYPE)"
  // Of all processes, estimated: the place in the program, and the mapping.  Empty where neither
  // side was sampled.
  std::vector<Change> sites;
  std::vector<Change> mappings;
};

Comparison compare(const cow::Measurement& before, const cow::Measurement& after);

}  // namespace cowshed::cowtop
