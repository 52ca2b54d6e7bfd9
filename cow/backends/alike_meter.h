#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/clock.h>
#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/sandbox/page_hasher.h>

namespace cowshed::cow {

// A running process whose memory is compared.
struct AlikeProcess {
  std::uint64_t id = 0;         // of no other process
  std::uint64_t parent_id = 0;  // by whose fork it shares memory; 0: by none
  pid_t pid = 0;
  std::uint64_t changes = 0;  // another number when its memory has changed
  // By it, and by its parent since the fork.  nullopt: not known.
  std::optional<std::uint64_t> copied_bytes = std::nullopt;
  std::optional<AlikeMemory>* alike = nullptr;
};

// Finds private memory that processes hold byte for byte alike, by hashing their pages, in rounds:
// for a 1,000th of one CPU's time, in steps of some milliseconds.  The first follow each other at
// doubling times, for a program may be short.  Of more than 32 MiB a round hashes a sample: the
// pages of every process at addresses drawn once.  Pages that are alike at one address are both in
// the sample, or neither is; those at different addresses are not found in it.
class AlikeMeter {
 public:
  explicit AlikeMeter(ProcFiles proc) : proc_(std::move(proc)) {}

  // Goes on with a round, or begins one if it is time to.  `running` has all processes.  A whole
  // round calls `meanwhile` every few milliseconds.
  void sample(
      const std::vector<AlikeProcess>& running, const std::function<void()>& meanwhile = [] {});
  // The next sample() makes a whole round, which hashes all pages, of up to 8 GiB: some 0.25 s of
  // CPU time for each GiB.
  void make_due() { is_wanted_ = true; }

 private:
  struct Round;

  bool is_due(const std::vector<AlikeProcess>& running) const;
  void begin(const std::vector<AlikeProcess>& running);
  // Takes one step; false: the round is done.
  bool go_on();
  void hash_some();
  std::uint64_t cost_ns() const { return thread_cpu_ns() + hasher_.cpu_ns(); }

  ProcFiles proc_;
  PageHasher hasher_;
  std::shared_ptr<Round> round_;     // null: none has begun
  std::set<std::uint64_t> refused_;  // processes whose memory did not answer
  const std::uint64_t begun_ns_ = monotonic_ns();
  std::uint64_t next_ns_ = 0;
  std::uint64_t compared_changes_ = 0;
  internal::TokenBucket budget_{1000, 5'000'000, 50'000'000};
  bool is_wanted_ = false;
};

}  // namespace cowshed::cow
