#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
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
#include <cowshed/probes/python_layout.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// The mappings of a process, saved while it lives.
struct AddressSpace {
  std::vector<Mapping> mappings;  // by address
  std::shared_ptr<StackUnwinder> unwinder;

  const Mapping* find(std::uint64_t address) const;
};

// The address spaces of the measured processes.  A forked child gets its parent's, read after the
// fork if possible.  /proc/PID/maps is read again after an exec, for some time after it, and if an
// address is not found, in at most a twentieth of the time for each process.  Unknown are the
// mappings of a process that called exec and ended before it was seen, and late mappings of a
// process that has ended.  One thread at a time.
class AddressSpaces {
 public:
  using OnInterpreter = std::function<void(std::uint64_t image, const PythonLayout& layout)>;

  // Calls `on_interpreter` as soon as a program is seen to have one of CPython.
  AddressSpaces(ProcFiles proc, BinaryCache& binaries, OnInterpreter on_interpreter);

  // Takes the counts of a process in the latest snapshot.  Call it for the parent first.
  void update(const ProcessCounts& process, std::uint64_t now_ns);

  // Reads changed mappings again.  Call it during long work between two snapshots.
  void keep_up(std::uint64_t now_ns);

  // Whether the process is, or was, known.
  bool knows(std::uint64_t process_id) const {
    return process_id <= last_forgotten_ || known_.contains(process_id);
  }
  // Whether its mappings after so many execs are known.
  bool knows(std::uint64_t process_id, std::uint64_t execs) const;

  // Returns the address space at the sample; null: unknown.
  const AddressSpace* at(const CopySample& sample);

  // Returns the perf map of the code that the process generated or inherited; null: none.
  const Binary* perf_map_of(const CopySample& sample) const;

  // Call it after each snapshot.  Forgets processes that had ended by the snapshot before, because
  // their last samples come with this one.  A process without mappings stays as long as a known
  // process has code that it generated.
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
    std::uint64_t image = 0;
    std::optional<PythonLayout> interpreter;  // as last reported
    std::uint64_t image_ns = 0;               // when that was first seen
    std::uint64_t read_ns = 0;                // 0: not read
    internal::DutyCycle reads{kReadsShare, kBetweenReadsNs};
    std::shared_ptr<AddressSpace> space;
    // The parent's last address space before the fork.  If a child is seen late, its parent may
    // have unmapped memory that the child still has.  So `read` keeps a parent's last address
    // spaces, with the times when they were read.
    std::shared_ptr<AddressSpace> space_before;
    std::vector<std::pair<std::uint64_t, std::shared_ptr<AddressSpace>>> read;
  };

  static constexpr std::uint64_t kReadsShare = 20;
  static constexpr std::uint64_t kBetweenReadsNs = 20'000'000;

  bool read(Known& known, std::uint64_t now_ns);
  void report_interpreter(Known& known);
  void read_if_due(Known& known, std::uint64_t now_ns);
  static void inherit(Known& child, const Known& parent, std::uint64_t fork_ns);
  std::shared_ptr<AddressSpace> space_of(std::vector<Mapping> mappings, pid_t pid);
  std::shared_ptr<StackUnwinder> unwinder_for(const std::vector<Mapping>& mappings, pid_t pid);

  ProcFiles proc_;
  BinaryCache* binaries_;
  OnInterpreter on_interpreter_;
  std::map<std::uint64_t, Known> known_;  // by the probe's id
  std::uint64_t last_forgotten_ = 0;      // the greatest of such ids
  std::uint64_t kept_up_ns_ = 0;
  std::map<std::string, std::weak_ptr<StackUnwinder>> unwinders_;  // by layout of the code
  // By a hash of the mappings.  Most of a thousand workers have equal mappings, whenever they are
  // read.
  std::unordered_multimap<std::size_t, std::weak_ptr<AddressSpace>> spaces_;
};

}  // namespace cowshed::cow
