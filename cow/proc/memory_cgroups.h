#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cow {

// Returns the folder where cgroup v2 is mounted, or where it usually is.
std::string cgroup_mount();

// What the out-of-memory killer did to the cgroups (v2) of measured processes, by memory.events.
// Where these files are not readable, nothing is known.  One thread at a time.
class MemoryCgroups {
 public:
  explicit MemoryCgroups(std::string mount = cgroup_mount()) : mount_(std::move(mount)) {}

  // Reads the counts of the cgroup, and of those above it, unless they are known: what they have
  // counted until now is past.  `path`: as ProcessCopies::cgroup.
  void note(const std::string& path);

  // What has happened since note(), or since the look() of another round.
  struct Look {
    std::uint64_t kills = 0;  // processes in the cgroup and below that the killer chose
    OutOfMemory why;          // without the holders
  };
  // `round`: of one number, each look at a cgroup returns the same.
  Look look(const std::string& path, std::uint64_t round);

  // For a backend that does not know how processes ended; call it at each sample with all of them.
  // Of those that have ended since, the killer perhaps chose the largest: as many as their cgroup
  // counts.
  void guess(const std::vector<ProcessCopies*>& processes, std::uint64_t round);

 private:
  struct Group {
    std::uint64_t kills = 0;
    std::uint64_t shortages = 0;  // that its own limit caused
    std::optional<std::uint64_t> limit_bytes;
    bool is_there = false;
  };
  Group read(std::string_view path) const;

  std::string mount_;
  std::map<std::string, Group, std::less<>> groups_;
  std::uint64_t round_ = 0;
  std::map<std::string, Look> looks_;     // of this round
  std::set<const ProcessCopies*> alive_;  // at the last guess()
};

// The three processes that hold most, as last read.  One that has just ended: what it held then.
std::vector<MemoryHolder> largest_holders(const std::vector<const ProcessCopies*>& processes);

}  // namespace cowshed::cow
