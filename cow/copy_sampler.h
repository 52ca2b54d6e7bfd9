#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <cowshed/cow/address_spaces.h>
#include <cowshed/cow/code_sites.h>
#include <cowshed/cow/proc_files.h>
#include <cowshed/cow/sampled_copies.h>
#include <cowshed/cow/store_sites.h>
#include <cowshed/cow/symbols.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// From sampled copies to who made them: saves what processes have mapped, unwinds, adds up, and
// looks names up at the end.  One thread at a time.
class CopySampler {
 public:
  explicit CopySampler(const ProcFiles& proc);

  // `samples` must have been taken before the snapshot that `processes` are of.  One whose process
  // is not in it, as happens while many come and go, waits for the next.
  void add(const std::vector<CopySample>& samples, const std::vector<ProcessCounts>& processes);

  // As of the last call; of one process by the probe's id, and of all.
  SampledCopies of(std::uint64_t process_id, const CodeSites::Copies& copies);
  SampledCopies of_all(const CodeSites::Copies& copies);
  // Why a process copied; nullopt where instructions cannot be decoded here.
  std::optional<std::vector<CopyPattern>> patterns_of(std::uint64_t process_id);

 private:
  void attribute(const CopySample& sample);
  void attribute_waiting();

  std::vector<CopySample> waiting_;
  Binaries binaries_;  // outlives those that have its addresses
  AddressSpaces spaces_;
  CodeSites sites_;
  std::optional<StoreSites> stores_;
  Symbols symbols_;
};

}  // namespace cowshed::cow
