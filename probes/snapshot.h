#pragma once

#include <map>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/programs.h>

namespace cowshed {

// Puts together what the maps hold of ended threads and what the iterator sees of live ones.
// A thread that ends between the two reads would be missed or counted twice; a process's flush
// number, read before and after the live threads, tells, and then the whole is read again.
class SnapshotReader {
 public:
  explicit SnapshotReader(const Programs& programs) : programs_(&programs) {}

  // Ended processes are removed from the kernel's maps when they are returned.
  Expected<std::vector<ProcessCounts>> read(std::uint64_t& events, std::uint64_t& vma_misses);

 private:
  const Programs* programs_;
  std::map<std::uint64_t, ProcessCounts> last_;  // live ones, by id
  std::uint64_t ended_events_ = 0;
  std::uint64_t ended_vma_misses_ = 0;
};

}  // namespace cowshed
