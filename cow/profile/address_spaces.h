#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <sys/types.h>
#include <unordered_map>
#include <utility>
#include <vector>

#include <cowshed/base/rate_limit.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/symbolize/binary_cache.h>
#include <cowshed/cow/symbolize/stack_unwinder.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// What a process has mapped, saved while it lives.
struct AddressSpace {
  std::vector<Mapping> mappings;  // by address
  std::shared_ptr<StackUnwinder> unwinder;

  const Mapping* find(std::uint64_t address) const;
};

// The address spaces of the measured processes.  A forked child has its parent's, read after it was
// forked where possible; /proc/PID/maps is read anew after an exec, for some time after that, and
// where an address is not found, which takes at most a twentieth of the time for each process. What
// cannot be known: the mappings of a process that executed another program and ended before it was
// seen once, and of one that mapped more, then ended. One thread at a time.
class AddressSpaces {
 public:
  AddressSpaces(ProcFiles proc, BinaryCache& binaries);

  // What the newest snapshot says of a process; its parent's comes first.
  void update(const ProcessCounts& process, std::uint64_t now_ns);

  // Reads again what may have changed, of processes as of the newest snapshot: for whoever is busy
  // between two snapshots for long.
  void keep_up(std::uint64_t now_ns);

  // Also of one that it has let go of.
  bool knows(std::uint64_t process_id) const {
    return process_id <= last_forgotten_ || known_.contains(process_id);
  }
  // In the image that it is after so many execs.
  bool knows(std::uint64_t process_id, std::uint64_t execs) const;

  // That of the process when it was sampled; null where it is not known.
  const AddressSpace* at(const CopySample& sample);

  // The perf map that names code that the process generated, or inherited; null if there is none.
  const Binary* perf_map_of(const CopySample& sample) const;

  // Once after each snapshot: lets go of processes that had ended by the one before.  (Of those
  // that ended since, the last samples come with the next.)  One stays, without its mappings, as
  // long as a process is known that has the code that it generated.
  void forget_ended();

 private:
  struct Known {
    pid_t pid = 0;
    uid_t owner = 0;  // when its mappings were read
    std::uint64_t parent_id = 0;
    bool alive = false;
    bool had_ended = false;  // at the snapshot before
    bool own_image = false;  // executed a program, or was there before us
    std::uint64_t execs = 0;
    std::uint64_t image_ns = 0;  // when that was first seen
    std::uint64_t read_ns = 0;   // 0: not read
    DutyCycle reads{kReadsFactor, kBetweenReadsNs};
    std::shared_ptr<AddressSpace> space;
    // Where a child is seen late, its parent may have given back what it shared with it: what was
    // read of it last before the fork.  So a parent's last few are kept, with when they were read.
    std::shared_ptr<AddressSpace> space_before;
    std::vector<std::pair<std::uint64_t, std::shared_ptr<AddressSpace>>> read;
  };

  static constexpr std::uint64_t kReadsFactor = 19;
  static constexpr std::uint64_t kBetweenReadsNs = 20'000'000;

  bool read(Known& known, std::uint64_t now_ns);
  void read_if_due(Known& known, std::uint64_t now_ns);
  static void inherit(Known& child, const Known& parent, std::uint64_t fork_ns);
  std::shared_ptr<AddressSpace> space_of(std::vector<Mapping> mappings, pid_t pid);
  std::shared_ptr<StackUnwinder> unwinder_for(const std::vector<Mapping>& mappings, pid_t pid);

  ProcFiles proc_;
  BinaryCache* binaries_;
  std::map<std::uint64_t, Known> known_;  // by the probe's id
  std::uint64_t last_forgotten_ = 0;      // the greatest of such ids
  std::uint64_t kept_up_ns_ = 0;
  std::map<std::string, std::weak_ptr<StackUnwinder>> unwinders_;  // by layout of the code
  // Of a thousand workers most have the same, and each time that it is read.  By a hash of it.
  std::unordered_multimap<std::size_t, std::weak_ptr<AddressSpace>> spaces_;
};

}  // namespace cowshed::cow
