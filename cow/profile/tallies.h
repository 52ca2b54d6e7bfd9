#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/cow/causes/new_memory.h>
#include <cowshed/cow/causes/store_sites.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/profile/address_spaces.h>
#include <cowshed/cow/profile/new_pages.h>
#include <cowshed/cow/symbolize/python_frames.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

struct SampledStack {
  StoreSites::Kernel kernel;
  CodeStack code;
  std::vector<const Frame*> python;  // of the Tallies, innermost first
  NewPage page = NewPage::held;      // of new memory, as the next
  Descriptor descriptor = Descriptor::none;
  auto operator<=>(const SampledStack&) const = default;
};

// New memory that a process holds.
struct HeldPages {
  std::uint64_t pages = 0;
  bool at_most = false;     // when it held most: it has ended
  std::uint64_t given = 0;  // pages that are not new, but the first to come: its children got them
  bool is_forked = true;    // and has executed nothing
};

// The samples of one process, added up.
struct Tally {
  using Stack = SampledStack;
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
  struct Block {  // of one mapping
    static constexpr std::uint64_t kBytes = 2 << 20;
    static constexpr std::uint64_t kAnywhere = ~std::uint64_t{0};  // in several processes
    std::uint64_t number = kAnywhere;
    std::string mapping = "unknown";
    auto operator<=>(const Block&) const = default;
  };
  struct Failure {
    FailedAccess access;  // without its stack
    Stack stack;
  };

  SampleSum all;
  std::map<Stack, StackSum> stacks;
  std::map<Block, SampleSum> blocks;
  std::map<std::string, SampleSum> types;
  std::uint64_t python_unread = 0;
  std::vector<Failure> failures;
  std::optional<Stack> fork;
  NewPages pages;                   // of new memory; the sums have all that it ever had
  const Stack* last_new = nullptr;  // of the last sample of new memory
  std::uint64_t execs = 0;
  bool is_forked = true;

  // Returns the sums of new memory that the process holds.  Of a sum of processes: itself.
  Tally held(const HeldPages& its) const;
};

// Adds up the samples of each process by stack, by mapping and by address.  Its memory is bounded:
// beyond a limit, new keys are added to one.  One thread at a time.
class Tallies {
 public:
  // Attributes samples by the mappings of their processes in `spaces`.  Both must outlive it.
  Tallies(AddressSpaces& spaces, BinaryCache& binaries) : spaces_(&spaces), binaries_(&binaries) {}

  // `stores` may be nullptr.
  void add(const CopySample& sample, StoreSites* stores = nullptr);
  // Adds a sample of class `failed`.
  void add_failure(const CopySample& sample);
  // Adds the stack of the fork that made the process.
  void add_fork(const CopySample& fork);

  // As CopyProfiler::merge().
  void merge(std::uint64_t process_id, std::uint64_t into);

  // As of NewPages.
  void look(std::uint64_t process_id, const NewPages::Look& look);
  void end(std::uint64_t process_id, std::uint64_t held);

  // By the probe's ID of the process.
  const std::map<std::uint64_t, Tally>& all() const { return tallies_; }

 private:
  Tally& tally_of_program(const CopySample& sample);
  Tally::Stack stack_of(const CopySample& sample, const AddressSpace* space);
  void add_missed(const CopySample& sample, const Tally::Stack& counted, Tally& tally);
  const Tally::Stack& count_stack(Tally::Stack stack, const CopySample& sample, StoreSites* stores,
                                  Tally& tally);

  AddressSpaces* spaces_;
  BinaryCache* binaries_;
  PythonFrames python_;
  std::map<std::uint64_t, Tally> tallies_;
  std::size_t addresses_ = 0;  // of all stacks, and their parts
  std::size_t blocks_ = 0;
  std::size_t types_ = 0;
};

}  // namespace cowshed::cow
