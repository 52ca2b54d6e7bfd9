#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/clock.h>
#include <cowshed/base/error.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// The result of Backend::attach().
struct Attached {
  int processes = 0;           // newly measured ones
  std::vector<Error> refused;  // one per refused root: no_such_process, permission_denied
};

// The processes for which a measurement has sampled code.  To look up names for all processes costs
// more than the rest of a measurement.
class CodeOf {
 public:
  static CodeOf all() { return CodeOf(true, {}); }
  static CodeOf none() { return CodeOf(false, {}); }
  static CodeOf process(ProcessId id) { return CodeOf(false, id); }

  bool is_all() const { return is_all_; }
  bool includes(const ProcessCopies& process) const { return is_all_ || process.id() == id_; }

 private:
  CodeOf(bool is_all, ProcessId id) : is_all_(is_all), id_(id) {}
  bool is_all_;
  ProcessId id_;
};

// A way to measure process trees.  Not thread-safe.  The destructor ends the measurement and leaves
// nothing behind in the kernel or in the measured processes.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;
  virtual bool exact() const = 0;

  // Measures `child` and its descendants from the first instruction of the program that it
  // executes. `child` must be a child of the caller that has not called exec.  Errors:
  // no_such_process.
  virtual Expected<void> track_command(pid_t child) = 0;

  // Measures the running processes `roots` and their descendants from now on.  May be called again.
  // Each root gets Role::root; the memory that it shared at its fork is unknown.  A root that
  // descends from a measured process, or from another root, becomes a child.  Duplicates count
  // once. The caller and its descendants are measured only if they are named.  A refused root does
  // not stop the others.  Errors, if no root can be measured: no_such_process or permission_denied
  // of the first root; system_call.
  virtual Expected<Attached> attach(const std::vector<pid_t>& roots) = 0;

  // Whether `pid` was measured and running at the last sample(), or was attached to since.
  virtual bool measures(pid_t pid) const = 0;

  // Collects counts.  Call it every interval(), and once more before measurement().
  virtual Expected<void> sample() = 0;
  virtual std::chrono::milliseconds interval() const = 0;
  // The next sample() sums the tree's memory and compares its pages (alike_meter.h), whatever that
  // costs.  It also looks at each process's own memory again, for at most a fifth of a second.
  virtual void want_memory() {}

  // Between samples, call take_pending() when pending_fd() is readable, and from then on this often
  // until pending_interval() is nullopt.  It empties the kernel's buffer in a fraction of the time
  // of sample().  It returns true if sample() is due now.
  virtual int pending_fd() const { return -1; }
  virtual std::optional<std::chrono::milliseconds> pending_interval() const { return std::nullopt; }
  virtual bool take_pending() { return false; }

  // Whether any measured process was running at the last sample().
  virtual bool any_alive() const = 0;

  // Returns the measurement as of the last sample(), without the processes that take_ended()
  // returned.  Only the processes of `code` have sampled code.  Measurement::sampled is set only
  // for CodeOf::all().
  virtual Measurement measurement(const CodeOf& code) const = 0;
  Measurement measurement() const { return measurement(CodeOf::all()); }

  // Limits the memory of a long measurement.  If more than `most` processes have ended, it merges
  // those with the fewest copies (backends/process_rollup.h).  Sums over measurement() do not
  // change.
  virtual void merge_ended(std::size_t most) = 0;

  // Limits the memory of an endless measurement.  Returns each ended process once, and forgets it.
  // Returns none while copies are sampled.
  virtual std::vector<ProcessCopies> take_ended() = 0;

 protected:
  // Returns a measurement without counts, as of now.
  Measurement begun_measurement() const;
  const std::uint64_t started_ns_ = monotonic_ns();
};

}  // namespace cowshed::cow
