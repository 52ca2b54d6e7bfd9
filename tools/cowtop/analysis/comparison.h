#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// The copies of one process, object, site, mapping or type in two measurements.
struct Change {
  std::string name;
  // Copied pages, if nothing else is said; nullopt: unknown, or there was no such process.
  std::optional<std::uint64_t> before;
  std::optional<std::uint64_t> after;
  bool is_known = true;  // on both sides; an absent process copied nothing

  // after - before; nullopt if unknown.
  std::optional<std::int64_t> growth() const;
};

// Each list has the entries of both sides, the most changed first.
struct Comparison {
  // All processes with known copies.  Its growth is known if these are the same processes on both
  // sides.
  Change total;
  Change at_exit;  // not in the total: while programs ended
  // Processes with unknown copies, which are in no total.
  std::uint64_t not_known_before = 0;
  std::uint64_t not_known_after = 0;
  Change peak_pss_bytes;  // of all processes together, in bytes
  // The same at least, as it was read, and at most, as processes ended unread; nullopt: unread.
  using Range = std::optional<std::pair<std::uint64_t, std::uint64_t>>;
  Range peak_range_before;
  Range peak_range_after;
  // NEW of all processes of which it is known, and of each that a fork made, in bytes.  The list is
  // empty if it is known of none.
  Change new_bytes;
  std::vector<Change> process_new_bytes;
  // Matched by their path in the tree: "server/worker[2]" is the second child of that name.  Where
  // each side has one root, and the roots' names differ, they are one: "python|python3".
  std::vector<Change> processes;
  std::vector<Change> objects;  // "ARENA/NAME (TYPE)", in all processes
  // Estimates for all processes.  Empty if neither side was sampled.
  std::vector<Change> sites;
  std::vector<Change> mappings;
  std::vector<Change> types;  // of Python objects
};

// Matches the processes, objects, sites, mappings and types of two measurements.
Comparison compare(const cow::Measurement& before, const cow::Measurement& after);

}  // namespace cowshed::cowtop
