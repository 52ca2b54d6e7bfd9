#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/cow/language.h>

// What was copied or is new, as shares by mapping, cause, type and line.
namespace cowshed::cowtop {

struct Share {
  std::string name;
  std::uint64_t bytes = 0;  // copied
  double of_all = 0;
  std::string remark;
  std::string file;  // of a site, if known
  int line = 0;
  // Of a cause in one process, of new memory one that was forked; 0: not known.
  std::uint64_t most_bytes = 0;
  std::uint64_t forked_bytes = 0;  // of new memory: of all such processes
  // Of a cause: of the process that has most of it.
  cow::Language language = cow::Language::native;
  cow::NewMemoryCause new_cause = {};  // of new memory
  std::string nameless_in = {};        // of a line whose function has no name: its binary
};

struct Shares {
  // Estimated where copies were sampled, the most first; frozen arenas with their exact counts.
  std::vector<Share> mappings;
  std::vector<Share> causes;
  std::vector<Share> types;  // of Python objects
  std::vector<Share> sites;
  // Of new memory, estimated: parts of new_bytes.  The causes include cow::kNoWriteFault.
  std::vector<Share> new_causes;
  std::vector<Share> new_sites;
  // The part of the samples whose line of Python is not known.
  double python_unread = 0;
};

// `copies` and `languages`: of each process.  The shares are of `copied_bytes` and of `new_bytes`.
Shares shares_of(const cow::Measurement& measurement, const std::vector<cow::ForkCopies>& copies,
                 const std::vector<cow::Language>& languages, std::uint64_t copied_bytes,
                 std::uint64_t new_bytes);

// The same of one process, with its `new_bytes`.
Shares shares_of_process(const cow::Measurement& measurement, const cow::ProcessCopies& process,
                         const cow::ForkCopies& copies, std::uint64_t new_bytes);

// The causes of one process's COPIED, the most first.  Empty: not known.
std::vector<Share> causes_of(const cow::ProcessCopies& process, const cow::ForkCopies& copies);

// Whether the process's samples explain its COPIED: of a program that was executed, most are of its
// own start.
bool explains_copies(const cow::ProcessCopies& process, const cow::ForkCopies& copies);

// Copies that neither a fork's sharing nor the program's end explains.
std::uint64_t first_writes_to_files(const cow::ProcessCopies& process,
                                    const cow::ForkCopies& copies);

}  // namespace cowshed::cowtop
