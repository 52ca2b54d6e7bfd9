#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/clock.h>
#include <cowshed/base/error.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// What came of Backend::attach().
struct Attached {
  int processes = 0;           // that were not measured before
  std::vector<Error> refused;  // one for each root: no_such_process, permission_denied
};

// Whose sampled code a measurement is to have.  That of all, named and added up, costs more than
// all the rest.
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

// One way of measuring process trees.  Not thread-safe: one thread drives it.  Destroying it ends
// the measurement and leaves nothing behind in the kernel or in the measured processes.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;
  virtual bool exact() const = 0;

  // Measures `child` (a child of the caller that has not called exec yet) and all its descendants,
  // from the first instruction of the program that it execs.
  virtual Expected<void> track_command(pid_t child) = 0;

  // Measures the running processes `roots` and their descendants from now on; may be called again.
  // Each is a root of its own (Role::root), with copies that are its own: what it shared at its
  // fork, and with whom, is not known.  A descendant of another root, or of a process that is
  // measured already, is a child there.  A process that is named twice is measured once.
  // The calling process and its descendants are measured only where they are named.  A root that
  // cannot be measured does not stop the others.  Errors: the first root's, no_such_process or
  // permission_denied, if none can be measured; system_call.
  virtual Expected<Attached> attach(const std::vector<pid_t>& roots) = 0;

  // Whether it was measured and running at the last sample(), or has been attached to since.
  virtual bool measures(pid_t pid) const = 0;

  // Collects.  To be called every interval(), and once more before measurement().
  virtual Expected<void> sample() = 0;
  virtual std::chrono::milliseconds interval() const = 0;

  // In between, as often as this (nullopt: never): take_pending().  It takes a fraction of
  // sample()'s time, and what the kernel would have no more room for; true: sample() is due now.
  virtual std::optional<std::chrono::milliseconds> pending_interval() const { return std::nullopt; }
  virtual bool take_pending() { return false; }

  // Whether any measured process was running at the last sample().
  virtual bool any_alive() const = 0;

  // All that was measured up to the last sample(), but for what take_ended() took, and for sampled
  // code: Measurement::sampled is there where that of all is asked for.
  virtual Measurement measurement(const CodeOf& code) const = 0;
  Measurement measurement() const { return measurement(CodeOf::all()); }

  // For who measures for hours: where more than `most` processes have ended, those that copied
  // least become few (backends/process_rollup.h).  Sums over measurement() stay what they are.
  virtual void merge_ended(std::size_t most) = 0;

  // For who measures for days: hands out, once, the processes that have ended and of which nothing
  // more will be known, and forgets them.  Not where copies are sampled: then it has none.
  virtual std::vector<ProcessCopies> take_ended() = 0;

 protected:
  // Of this moment, without what was measured.
  Measurement begun_measurement() const;
  const std::uint64_t started_ns_ = monotonic_ns();
};

}  // namespace cowshed::cow
