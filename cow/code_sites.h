#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <cowshed/cow/address_spaces.h>
#include <cowshed/cow/sampled_copies.h>
#include <cowshed/cow/symbols.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Adds samples up: by stack, by mapping, by address.  Names are looked up when somebody asks.
// One thread at a time.
class CodeSites {
 public:
  explicit CodeSites(std::uint32_t period) : period_(period) {}

  // Attributes a sample as of what was mapped: `spaces` must know the process.  Returns its stack.
  const CodeStack& add(const CopySample& sample, AddressSpaces& spaces, Binaries& binaries);

  // Of one process, by the probe's id, and of all together: the `most` frequent of each kind.
  SampledCopies of(std::uint64_t process_id, Symbols& symbols, std::size_t most) const;
  SampledCopies of_all(Symbols& symbols, std::size_t most) const;

  // Every stack of a process, named; in no order.
  std::vector<StackSamples> stacks(std::uint64_t process_id, Symbols& symbols) const;

 private:
  // Who wrote: the program itself, the kernel in no system call, or in the one of that number.
  static constexpr std::int64_t kProgram = -2;
  static constexpr std::int64_t kKernel = -1;
  struct Stack {
    std::int64_t writer = kProgram;
    CodeStack code;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it
    auto operator<=>(const Stack&) const = default;
  };
  struct Block {  // of 2 MiB, of one mapping
    std::uint64_t number = 0;
    std::string mapping;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it
    auto operator<=>(const Block&) const = default;
  };
  struct Tally {
    std::uint64_t samples = 0;
    std::map<Stack, std::uint64_t> stacks;
    std::map<Block, std::uint64_t> blocks;
  };

  static std::vector<Frame> frames(const Stack& stack, Symbols& symbols);
  std::vector<CodeSite> sites(const Tally& tally, Symbols& symbols, std::size_t most) const;
  std::vector<MappingCopies> mappings(const Tally& tally, std::size_t most) const;
  std::vector<RangeCopies> ranges(const Tally& tally, std::size_t most) const;

  std::uint32_t period_;
  std::map<std::uint64_t, Tally> tallies_;  // by process
};

// What to call the mapping of `address`, as MappingCopies::name has it.
std::string mapping_name(const AddressSpace& space, const CopySample& sample);

}  // namespace cowshed::cow
