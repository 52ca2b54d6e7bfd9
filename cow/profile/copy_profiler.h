#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/causes/store_sites.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/profile/address_spaces.h>
#include <cowshed/cow/profile/profile.h>
#include <cowshed/cow/profile/tallies.h>
#include <cowshed/cow/symbolize/symbolizer.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Attributes sampled copies to code: saves the mappings of processes, unwinds stacks, adds up, and
// looks up names at the end.  One thread at a time.
class CopyProfiler {
 public:
  CopyProfiler(const ProcFiles& proc, AddressSpaces::OnInterpreter on_interpreter);

  // Adds samples, which wait for attribute().  Drops those without room, and counts them as
  // SampleCounts does: without those of new memory.
  void add(std::vector<CopySample> samples);
  std::uint64_t dropped() const { return dropped_; }

  // Limit of waiting samples; their stacks take most of it.
  static constexpr std::size_t kMostWaitingBytes = 128 << 20;

  // Attributes the waiting samples of `processes`, which are a snapshot that was taken after them.
  // Samples of other processes, which may start meanwhile, keep waiting.  It may take long, so it
  // calls `meanwhile` now and then, which may add().
  void attribute(const std::vector<ProcessCounts>& processes,
                 const std::function<void()>& meanwhile);

  // Attributes the waiting samples of processes in the latest snapshot.
  void attribute_known(const std::function<void()>& meanwhile);
  // Whether samples wait.
  bool is_waiting() const { return !waiting_.empty(); }

  // Adds the samples of an ended process to another process, without their addresses.
  void merge(std::uint64_t process_id, std::uint64_t into);

  struct OfProcess {
    SampledCopies sampled;
    // The causes of its copies; nullopt: instructions cannot be decoded here.
    std::optional<std::vector<CopyPattern>> patterns;
  };
  // Return the attributed samples of one process, by the probe's ID, and of all.  Waiting samples
  // stay: their processes may be known later.
  OfProcess of(std::uint64_t process_id, const CopiedPages& copies);
  SampledCopies of_all(const CopiedPages& all) { return profile_of_all(sites_, all, symbols_); }
  // The same of new memory, as new_memory_of().
  NewMemory new_memory(const std::map<std::uint64_t, HeldPages>& pages) {
    return new_memory_of(fresh_, pages, symbols_);
  }
  // As of Tallies, of new memory.
  void look(std::uint64_t process_id, const NewPages::Look& look) { fresh_.look(process_id, look); }
  // The pages that the process's C library holds free, in order; nullopt: not known.
  std::optional<FreeMemory> free_pages(pid_t pid, const std::vector<Mapping>& mappings);
  void end(std::uint64_t process_id, std::uint64_t held) { fresh_.end(process_id, held); }
  // As BinaryCache::unread().
  std::vector<std::string> unread() const { return binaries_.unread(); }

 private:
  void attribute_one(CopySample& sample);
  template <class IsKnown>
  std::vector<CopySample> attribute_if(IsKnown is_known, const std::function<void()>& meanwhile);
  void wait_first(std::vector<CopySample> samples);

  std::vector<CopySample> waiting_;
  std::size_t waiting_bytes_ = 0;  // includes samples that are being attributed
  std::uint64_t dropped_ = 0;
  ProcFiles proc_;
  BinaryCache binaries_;  // outlives the next five
  AddressSpaces spaces_;
  Tallies sites_{spaces_, binaries_};
  Tallies fresh_{spaces_, binaries_};  // of new memory
  std::optional<StoreSites> stores_;
  Symbolizer symbols_;
};

}  // namespace cowshed::cow
