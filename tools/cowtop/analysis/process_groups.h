#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// Figures of several processes.
struct Sizes {
  std::uint64_t sum = 0;
  std::uint64_t least = UINT64_MAX;  // of one of them
  std::uint64_t most = 0;

  // `bytes`: of so many together.
  void add(std::uint64_t bytes, std::uint64_t processes);
  void add(const Sizes& more);
  bool are_alike() const;
};

// Processes that a reader would call the same: of one role, name and end.
struct ProcessGroup {
  std::string comm;
  // As container_name(); empty in rows of alike processes unless several containers are measured.
  std::string container;
  cow::Role role = cow::Role::child;
  bool has_executed = false;  // another program than the one that its parent forked
  bool is_older = false;      // forked before the measurement began
  bool maps_data = false;     // shares memory with files, too
  bool is_parent = false;     // copied for children that share its memory, or has no parent here
  // It also copied memory that it shares with its own parent: which of the two each copy was for is
  // not known.
  bool is_between = false;
  // The signal that ended it, if that is no request to end; or that perhaps did.
  std::optional<int> crash;
  std::string crash_place;   // where, if that is known: the innermost line with source
  std::string crash_caller;  // the program's own line, if that is another
  std::string killed_by;     // of the first, in words
  std::optional<cow::OutOfMemory> out_of_memory;
  // The least and the greatest exit status of those that failed; 0: they did not.
  int least_status = 0;
  int most_status = 0;
  std::uint64_t processes = 0;
  std::uint64_t forks = 0;                  // children that share its memory
  pid_t pid = 0;                            // of the first
  std::optional<cow::FailedAccess> failed;  // by which the first was killed, unless it is `handled`
  // COPIED, as cow::ForkCopies defines it.  nullopt: not known.
  std::optional<std::uint64_t> copied_bytes;
  std::uint64_t least_copied = 0;  // by one of them
  std::uint64_t most_copied = 0;
  // OWN, as cow::ForkCopies defines it.  nullopt: not known of any.
  std::optional<std::uint64_t> own_bytes;
  std::uint64_t own_known = 0;  // the processes of which it is known
  Sizes own;
  // The processes that hold memory beside copies: NEW, or what they had before the measurement.
  std::uint64_t holders = 0;
  bool are_holders_alive = true;  // all of them
  Sizes held;                     // of that memory
  Sizes held_own;                 // what they hold in all, and its parts
  Sizes held_new;
  Sizes held_copies;
  Sizes held_before;             // the measurement began, and still
  std::uint64_t free_bytes = 0;  // of it, in malloc and the like, as far as it is known
  // Of what they got at their forks, neither copied nor still there, as far as it is known.
  Sizes given_back;
  // At the fork, or when the measurement began if that was later, the most that one of them shared;
  // of a parent, that it shared with a child.
  std::optional<std::uint64_t> shared_bytes;
  std::uint64_t least_shared = 0;  // by one of them
  // ForkCopies::copied_ratio() of those that copied the least and the most of it.
  double least_part = 0;
  double most_part = 0;
  // What they still shared when they were last seen, as a part of what they shared at their forks.
  std::optional<double> still_shared;

  // Executed a program, and copied hardly anything before.
  bool only_ran() const;
  // And holds little.
  bool is_small() const;
  bool is_alike() const;
  bool shares_alike() const;
};

// Whether a child executed another program, copied less than 1 MiB before, and shares no memory by
// a fork or a file since.
bool only_ran(const cow::ProcessCopies& process, const cow::ForkCopies& copies);

// Whether it maps files of data, which it shares though no fork connects it.
bool maps_data(const cow::ProcessCopies& process);

// The most copied first; `each_process`: a group for each process.
std::vector<ProcessGroup> groups_of(const cow::Measurement& measurement,
                                    const std::vector<cow::ForkCopies>& copies, bool each_process);

}  // namespace cowshed::cowtop
