#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>

#include <cowshed/base/error.h>
#include <cowshed/cow/process_copies.h>
#include <cowshed/probes/counts.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

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

  // Measures the running process `root` and its descendants from now on, and returns how many
  // processes that is.  Errors: no_such_process, permission_denied.
  virtual Expected<int> attach(pid_t root) = 0;

  // Collects.  To be called every interval(), and once more before measurement().
  virtual Expected<void> sample() = 0;
  virtual std::chrono::milliseconds interval() const = 0;

  // Whether any measured process was running at the last sample().
  virtual bool any_alive() const = 0;

  // All that was measured up to the last sample().
  virtual Measurement measurement() const = 0;
};

enum class BackendChoice : std::uint8_t { automatic, tracepoint, pagemap };

struct OpenedBackend {
  std::unique_ptr<Backend> backend;
  // Where `automatic` had to settle for less: one line that says why, what is lacking and how to
  // get the rest.  Empty otherwise.
  std::string notice;
};

// Opens the named backend, or the best that works here: exact tracepoints, else /proc.
// `sampling` says how many copies to attribute to code (sampled_copies.h), which only tracepoints
// can: by default none; a buffer_bytes left as it is becomes one by CPUs and period.  So is
// `timing`, of the faults that copy.  Errors: permission_denied or unsupported when the named one
// cannot run here.
Expected<OpenedBackend> open_backend(BackendChoice choice, const SamplingOptions& sampling = {},
                                     Timing timing = Timing::off);

}  // namespace cowshed::cow
