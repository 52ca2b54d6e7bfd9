#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <cowshed/share/forkserver.h>
#include <cowshed/share/ref.h>

#include "bare_worker.h"
#include "holder.h"

namespace cowshed::bench {

// Both from before the start, until what the worker said is there.
struct JobTimes {
  double first_us;  // until it has read the first word
  double whole_us;  // until it has added up all words, and been reaped
};

struct JobAnswer {
  std::int64_t first_at;  // by the steady clock, which all processes have in common
  std::uint64_t first;
  std::uint64_t sum;
};

// A fixed job for one worker by a method of Starter's: to add up an array of its parent's.  By the
// library one in an arena goes as a reference; a std::vector on the heap is there after a fork, and
// is sent otherwise, by "vfork" and "posix_spawn" through a pipe.  Those cannot have one in an
// arena.
class Jobs {
 public:
  // The array is the first `bytes` of `holder`'s, where that has one in an arena; else one on the
  // heap, beside whatever that holds.
  Jobs(const Holder& holder, std::size_t bytes);

  // Throws std::runtime_error when the worker failed, or its answer is wrong.
  JobTimes measure(const std::string& method);

 private:
  JobAnswer by_hand(const std::string& method);
  JobAnswer by_library(const std::string& method);

  std::optional<Ref<std::span<const std::uint64_t>>> in_arena_;
  std::vector<std::uint64_t> on_heap_;
  std::span<const std::uint64_t> words_;  // in either
  JobAnswer* answer_;                     // shared with forked workers
  std::uint64_t first_ = 0;
  std::uint64_t sum_ = 0;
  std::optional<ForkServer> server_;  // from its first worker on
};

// What it asks of this program, whose main() begins with is_worker().
extern const NamedTask add_up_task;

}  // namespace cowshed::bench
