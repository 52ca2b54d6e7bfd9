#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include <cowshed/cow/causes/copy_causes.h>
#include <cowshed/cow/causes/store_decoder.h>
#include <cowshed/cow/code_reader/refcount_scan.h>
#include <cowshed/cow/symbolize/stack_unwinder.h>
#include <cowshed/cow/symbolize/symbolizer.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Decodes sampled copies and adds them up by instruction and its nearest callers, for the patterns
// that they make.  One thread at a time.
class StoreSites {
 public:
  explicit StoreSites(StoreDecoder decoder) : decoder_(std::move(decoder)) {}

  // `code` is the sample's stack.
  void add(const CopySample& sample, const CodeStack& code);

  // As CopyProfiler has it.
  void merge(std::uint64_t process_id, std::uint64_t into);

  // Of one process, by the probe's id.  Looks names up, and reads the binaries that count.
  std::vector<CopyPattern> patterns(std::uint64_t process_id, Symbolizer& symbols);

 private:
  // The writing instruction and its callers, as far out as they matter.
  static constexpr std::size_t kCallers = 6;
  struct SiteKey {
    // Nothing: the program itself; else the system call, or none.
    std::optional<std::optional<std::uint64_t>> kernel;
    std::array<CodeAddress, kCallers> code;
    auto operator<=>(const SiteKey&) const =
        default;  // NOLINT(modernize-use-nullptr): clang-tidy 14
  };
  using Sites = std::map<SiteKey, StoreSite>;

  std::size_t release_sites_of(const Binary* binary, CounterField field);

  // What a process that copies from ever other places may have us keep; then they are all one.
  static constexpr std::size_t kMostSites = 1 << 17;

  StoreDecoder decoder_;
  std::size_t sites_ = 0;
  std::map<std::uint64_t, Sites> processes_;
  std::map<const Binary*, std::map<CounterField, std::size_t>> releases_;
};

}  // namespace cowshed::cow
