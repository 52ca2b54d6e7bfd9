#pragma once

// Room cow/profile: attributes samples to processes and adds them up.  May use base, cow, cow/proc,
// cow/symbolize, cow/causes, probes.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/causes/store_sites.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/profile/address_spaces.h>
#include <cowshed/cow/profile/profile_builder.h>
#include <cowshed/cow/symbolize/symbolizer.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// From sampled copies to who made them: saves what processes have mapped, unwinds, adds up, and
// looks names up at the end.  One thread at a time.
class CopyProfiler {
 public:
  explicit CopyProfiler(const ProcFiles& proc);

  // They wait for the next attribute().  Those that there is no room for are dropped, and counted.
  void add(std::vector<CopySample> samples);
  std::uint64_t dropped() const { return dropped_; }

  // Of samples that wait, at most; their stacks are most of it.
  static constexpr std::size_t kMostWaitingBytes = 128 << 20;

  // Attributes all that was added before the snapshot that `processes` are of was made.  What
  // belongs to none of them, as happens while many come and go, waits on.  That may take long:
  // `meanwhile` is called now and then, and may add().
  void attribute(const std::vector<ProcessCounts>& processes,
                 const std::function<void()>& meanwhile);

  // Attributes at once what is of processes as of the newest snapshot; the rest waits on.
  void attribute_known(const std::function<void()>& meanwhile);
  // Whether anything does.
  bool is_waiting() const { return !waiting_.empty(); }

  // What was sampled of a process that has ended counts for another from now on, but for where in
  // its memory that was.
  void merge(std::uint64_t process_id, std::uint64_t into);

  // As of the last call; of one process by the probe's id, and of all.
  SampledCopies of(std::uint64_t process_id, const ProfileBuilder::Copies& copies);
  SampledCopies of_all(const ProfileBuilder::Copies& copies);
  // As BinaryCache::unread().
  std::vector<std::string> unread() const { return binaries_.unread(); }
  // Why a process copied; nullopt where instructions cannot be decoded here.
  std::optional<std::vector<CopyPattern>> patterns_of(std::uint64_t process_id);

 private:
  void attribute_one(const CopySample& sample);
  template <class IsKnown>
  std::vector<CopySample> attribute_if(IsKnown is_known, const std::function<void()>& meanwhile);
  void wait_first(std::vector<CopySample> samples);
  void attribute_waiting();

  std::vector<CopySample> waiting_;
  std::size_t waiting_bytes_ = 0;  // with those that are just being placed
  std::uint64_t dropped_ = 0;
  BinaryCache binaries_;  // outlives those that have its addresses
  AddressSpaces spaces_;
  ProfileBuilder sites_;
  std::optional<StoreSites> stores_;
  Symbolizer symbols_;
};

}  // namespace cowshed::cow
