#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/analysis/remedy.h>

// As evidence.h, of the forks themselves.
namespace cowshed::cowtop {

// Processes of one name that fork.
struct Forker {
  std::string comm;
  ForkCosts costs;
  double lived_s = 0;                  // all of them together, while they were measured
  std::uint64_t page_tables_each = 0;  // the most that one fork made
  std::uint64_t went_on = 0;           // children that kept the memory
  std::uint64_t ran = 0;               // children that executed a program instead
  std::uint64_t written_each = 0;      // bytes that it wrote for one fork, of what a fork shares
  std::uint64_t shared = 0;            // with a child, at most

  double part_of_life() const;
  // Whether its forks are worth a word.  Those of small processes only had to wait for a CPU.
  bool is_slow() const;
  bool only_ran() const { return went_on == 0 && ran > 0; }
  bool hardly_writes() const;
  // Not of huge pages, which keep page tables in reserve.
  bool copies_tables() const;
  std::string each() const;  // "66 ms", "66 ms, 12 times a second"
};

// Those whose forks failed first, then those whose forks took the most time.
std::vector<Forker> forkers_of(const cow::Measurement& measurement);

// The one that forked beside threads children that go on; null: none did.
const Forker* with_threads(const std::vector<Forker>& forkers);

// Forks failed with that error, or for a reason that is not known.
Offers of_no_memory(const Remedy& remedy, const Evidence& evidence);
Offers of_no_processes(const Remedy& remedy, const Evidence& evidence);
// Children copied before they executed programs, or all did, and the forks for them are slow.
Offers of_programs(const Remedy& remedy, const Evidence& evidence);
// A fork copies the page tables of ordinary memory.  Those of a settled heap it does not, and those
// of huge pages are few, until they are written to.
Offers of_page_tables(const Remedy& remedy, const Evidence& evidence);
Offers of_small_pages(const Remedy& remedy, const Evidence& evidence);
// Children that go on were forked beside threads.
Offers of_threads(const Remedy& remedy, const Evidence& evidence);

}  // namespace cowshed::cowtop
