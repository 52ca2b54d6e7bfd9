#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include <cowshed/cow/causes/copy_causes.h>
#include <cowshed/cow/causes/store_decoder.h>
#include <cowshed/cow/code_reader/refcount_scan.h>
#include <cowshed/cow/symbolize/stack_unwinder.h>
#include <cowshed/cow/symbolize/symbolizer.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Decodes sampled copies and adds them up by the instruction and its nearest callers, to find
// causes. One thread at a time.
class StoreSites {
 public:
  explicit StoreSites(StoreDecoder decoder) : decoder_(std::move(decoder)) {}

  // Adds a sample with the stack `code`.  Returns the cause that the written object shows, for
  // Causes::of(); empty: none.
  std::string_view add(const CopySample& sample, const CodeStack& code);

  // As CopyProfiler::merge().
  void merge(std::uint64_t process_id, std::uint64_t into);

  // nullopt: the program stored; else the system call, if any.
  using Kernel = std::optional<std::optional<std::uint64_t>>;

  // Samples of one stack below a function that ends the program.
  struct AtExit {
    Kernel kernel;
    CodeStack code;
    SampleSum sum;
  };

  class Causes;
  // Returns the causes of one process, by the probe's ID.  Looks up names and reads binaries.
  Causes causes(std::uint64_t process_id, const std::vector<AtExit>& at_exit, Symbolizer& symbols);

 private:
  // The storing instruction, its nearest callers, and what its objects show.
  static constexpr std::size_t kCallers = 8;
  struct SiteKey {
    Kernel kernel;
    std::array<CodeAddress, kCallers> code;
    std::string_view object_cause;
    auto operator<=>(const SiteKey&) const = default;
  };
  using Sites = std::map<SiteKey, StoreSite>;
  static SiteKey key_of(const Kernel& kernel, const CodeStack& code);

  StoreInstruction decode(const CopySample& sample, const CodeStack& code);
  std::size_t release_sites_of(const Binary* binary, CounterField field);

  // Limit of memory.  Beyond it, new sites are added to one.
  static constexpr std::size_t kMostSites = 1 << 17;

  StoreDecoder decoder_;
  std::map<CodeAddress, StoreInstruction> decoded_;
  std::size_t sites_ = 0;
  std::map<std::uint64_t, Sites> processes_;
  std::map<const Binary*, std::map<CounterField, std::size_t>> releases_;
};

class StoreSites::Causes {
 public:
  std::vector<CopyPattern> patterns;

  // Returns the cause of samples that were not taken while the program ended; empty: not known.
  std::string_view of(const Kernel& kernel, const CodeStack& code,
                      std::string_view object_cause) const;

 private:
  friend StoreSites;
  std::map<SiteKey, std::string_view> of_sites_;
};

}  // namespace cowshed::cow
