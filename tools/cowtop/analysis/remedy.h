#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <cowshed/cow/language.h>
#include <cowshed/tools/cowtop/analysis/summary.h>

namespace cowshed::cowtop {

// Causes that are neither of copies nor of new memory.
inline constexpr std::string_view kPickling = "pickling";
inline constexpr std::string_view kParentWrites = "a parent's writes";
inline constexpr std::string_view kUnchangedCopies = "copies that changed nothing";
inline constexpr std::string_view kPrograms = "programs";
inline constexpr std::string_view kStartedAlike = "processes started alike";
inline constexpr std::string_view kPageTablesOfForks = "page tables";
inline constexpr std::string_view kSmallPages = "small pages";
inline constexpr std::string_view kSparsePages = "sparse huge pages";
inline constexpr std::string_view kFailedForks = "failed forks";
inline constexpr std::string_view kOutOfMemory = "out of memory";
inline constexpr std::string_view kThreadsAtFork = "threads at a fork";
inline constexpr std::string_view kMallocArenas = "arenas of malloc";

// As Remedy::no_proof.
inline constexpr std::string_view kSavesNothing = "it saves nothing by itself";

// What `cowtop cure` runs: a remedy that needs no edit of the program.
struct Cure {
  std::string name;              // "MALLOC_ARENA_MAX=2"
  std::string tried_where = {};  // "the dynamic linker copies"
  std::vector<std::pair<std::string, std::string>> environment = {};
  std::vector<std::string> prefix = {};  // words before the command: {"cowshed", "run", "--"}
  // Names and contents of the files of ours that it is tried with, and what to do for good instead.
  std::vector<std::pair<std::string, std::string>> files = {};
  std::string for_good = {};

  // Whether it runs the command by cowshed run, and that freezes.
  bool freezes() const {
    return !prefix.empty() &&
           (environment.empty() ||
            environment.front() != std::pair<std::string, std::string>{"COWSHED", "off"});
  }
};

// What a measurement says.  Both are null for what a command may need that was not measured yet.
struct Evidence {
  const cow::Measurement* measurement = nullptr;
  const Summary* summary = nullptr;
  int threads = 1;  // the most that a process was seen to have
};

struct Offer {
  std::uint64_t saves_bytes = 0;  // at most; 0: nothing by itself
  std::string text = {};          // with the figures of the measurement; else Remedy::text
  bool is_known = true;           // as is_sure()
  bool is_urgent = false;         // the program fails without it
};
using Offers = std::vector<Offer>;

struct Remedy {
  std::string_view cause;  // of copies, of new memory, or one of the above
  Offers (*when)(const Remedy& remedy, const Evidence& evidence);
  std::string_view text;  // imperative, in a line; empty: only cure tries it
  // Empty: where no other remedy of the cause names the language.
  std::vector<cow::Language> in = {};
  const Cure* cure = nullptr;
  // Why tests/programs/remedies_test.py does not follow it; empty: it does.
  std::string_view no_proof = {};
};

}  // namespace cowshed::cowtop
