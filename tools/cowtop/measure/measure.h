#pragma once

#include <optional>

#include <cowshed/cow/open_backend.h>
#include <cowshed/tools/cowtop/measure/measure_options.h>

namespace cowshed::cowtop {

// Receives events of a running measurement, in the thread of measure().
class Observer {
 public:
  virtual ~Observer() = default;
  // Called after each sample, and last after the end of all processes or Ctrl-C.
  virtual void sampled(const cow::Backend& backend) = 0;

  // A descriptor: readable() is called between samples when it is readable; -1: none.
  virtual int fd() const { return -1; }
  // Returns false to end the measurement of attached processes.  A command is measured to its end.
  virtual bool readable() { return true; }
  // Called after Ctrl-C or another end signal, which a command gets as well.
  virtual void asked_to_end() {}
};

struct Measured {
  std::optional<cow::Measurement> measurement;  // nullopt: the measurement failed
  // The status of the command (complain.h); 0 for attached processes.  If it would be 0 but not all
  // was measured: kOwnError, after a message.
  int exit_status = 0;
};

// Waits for `signal_fd` or `end_fd` (a pidfd or a timer; -1: none) to be readable, or for the time
// of the next sample.  Empties the kernel's buffer meanwhile.  False: the observer, which may be
// nullptr, has seen enough.
bool wait_for_event(int signal_fd, int end_fd, cow::Backend& backend, Observer* observer);

// Limits the memory of ended processes, unless the options keep each.
void bound_ended(const MeasureOptions& options, cow::Backend& backend);

// Runs the command, or attaches, and measures until the end of the processes or Ctrl-C.  If the
// selection may still grow, it ends only by Ctrl-C.  Prints errors.
Measured measure(const MeasureOptions& options, Observer* observer = nullptr);
// Does the same with the given backend.
Measured measure_by(cow::OpenedBackend& opened, const MeasureOptions& options,
                    Observer* observer = nullptr);

}  // namespace cowshed::cowtop
