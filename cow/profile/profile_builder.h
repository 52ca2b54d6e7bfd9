#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/causes/new_memory.h>
#include <cowshed/cow/causes/store_sites.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/profile/address_spaces.h>
#include <cowshed/cow/symbolize/python_frames.h>
#include <cowshed/cow/symbolize/symbolizer.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Adds up samples by stack, by mapping and by address.  Looks up names only for of() and of_all().
// One thread at a time.
class ProfileBuilder {
 public:
  // Attributes a sample by the mappings of its process in `spaces`.  `stores` may be nullptr.
  void add(const CopySample& sample, AddressSpaces& spaces, BinaryCache& binaries,
           StoreSites* stores = nullptr);

  // Attributes a sample of class `failed`.
  void add_failure(const CopySample& sample, AddressSpaces& spaces, BinaryCache& binaries);

  // The stack of the fork that made the process.
  void add_fork(const CopySample& fork, AddressSpaces& spaces, BinaryCache& binaries);

  // As CopyProfiler::merge().
  void merge(std::uint64_t process_id, std::uint64_t into);

  // The copied pages of each process, by the probe's ID.
  using Copies = std::map<std::uint64_t, std::uint64_t>;

  // Return the `most` frequent entries of each kind, for one process or for all; every stack for
  // one process, with its cause of `causes`.  Estimates spread `copies` over the samples.
  SampledCopies of(std::uint64_t process_id, const Copies& copies, Symbolizer& symbols,
                   std::size_t most, const StoreSites::Causes& causes = {}) const;
  SampledCopies of_all(const Copies& copies, Symbolizer& symbols, std::size_t most) const;
  // Of samples of new memory; `pages` in place of copies.
  NewMemory new_memory(const Copies& pages, Symbolizer& symbols, std::size_t most) const;

  // Returns the samples of one process below functions that end the program, if they are not those
  // below which it was forked.
  std::vector<StoreSites::AtExit> at_exit(std::uint64_t process_id, Symbolizer& symbols) const;

 private:
  // The writer: the program, the kernel outside a system call, or a system call by number.
  static constexpr std::int64_t kProgram = -2;
  static constexpr std::int64_t kKernel = -1;
  struct Stack {
    std::int64_t writer = kProgram;
    CodeStack code;
    std::vector<const Frame*> python;  // of `python_`, innermost first
    NewPage page = NewPage::first;     // of new memory, as the next
    Descriptor descriptor = Descriptor::none;
    auto operator<=>(const Stack&) const = default;
    StoreSites::Kernel kernel() const;
  };
  // To what samples of a stack wrote.
  struct Written {
    std::string_view object_cause;  // as StoreSites::add() returned it
    std::string type;               // as TypeCopies::name; empty: none
    auto operator<=>(const Written&) const = default;
  };
  struct StackSum {
    SampleSum all;
    std::map<Written, SampleSum> parts;  // of copies
    std::uint64_t processes = 0;         // that were merged
  };
  struct Block {                                                   // of 2 MiB, of one mapping
    static constexpr std::uint64_t kAnywhere = ~std::uint64_t{0};  // in several processes
    std::uint64_t number = 0;
    std::string mapping;
    auto operator<=>(const Block&) const = default;
  };
  struct Failure {
    FailedAccess access;  // without its stack
    Stack stack;
  };
  struct Tally {
    SampleSum all;
    std::map<Stack, StackSum> stacks;
    std::map<Block, SampleSum> blocks;
    std::map<std::string, SampleSum> types;
    std::uint64_t python_unread = 0;
    std::vector<Failure> failures;
    std::optional<Stack> fork;
  };

  // The samples of one process, and its copies per copy that a sample stands for.
  struct Weighted {
    const Tally* tally;
    double scale;
    double copies(const SampleSum& sum) const { return static_cast<double>(sum.copies) * scale; }
  };

  Stack stack_of(const CopySample& sample, const AddressSpace* space, const AddressSpaces& spaces,
                 BinaryCache& binaries);
  static NewPage page_of(const CopySample& sample, const Block& block, const Tally& tally);
  void count_type(std::string name, const SampleSum& one, Tally& tally);
  void count_part(Written written, const SampleSum& one, StackSum& stack);
  std::vector<Weighted> weighted_all(const Copies& copies) const;
  static Weighted weighted(std::uint64_t process_id, const Tally& tally, const Copies& copies);
  static void look_up(const std::vector<Weighted>& tallies, Symbolizer& symbols);
  static std::vector<Frame> frames(const Stack& stack, Symbolizer& symbols);
  static std::vector<CodeSite> sites(const std::vector<Weighted>& tallies, Symbolizer& symbols,
                                     std::size_t most);
  template <class T, class CountOf>
  static std::vector<T> by_name(const std::vector<Weighted>& tallies, std::size_t most,
                                CountOf count_of);
  static SampledCopies added_up(const std::vector<Weighted>& tallies, Symbolizer& symbols,
                                std::size_t most);
  static std::vector<RangeCopies> ranges(const Weighted& weighted, std::size_t most);
  static std::vector<FailedAccess> failures(const Tally& tally, Symbolizer& symbols);
  static std::vector<FoldedStack> folded(const Weighted& weighted, Symbolizer& symbols,
                                         const StoreSites::Causes& causes);

  // Limits of memory.
  static constexpr std::size_t kMostAddresses = 1 << 20;
  static constexpr std::size_t kMostBlocks = 1 << 18;
  static constexpr std::size_t kMostTypes = 1 << 16;
  void shorten_new(Stack& stack, const Tally& tally) const;

  PythonFrames python_;
  std::map<std::uint64_t, Tally> tallies_;  // by process
  std::size_t addresses_ = 0;               // of all stacks, and their parts
  std::size_t blocks_ = 0;
  std::size_t types_ = 0;
};

}  // namespace cowshed::cow
