#pragma once

#include <optional>

#include <cowshed/cow/open_backend.h>
#include <cowshed/tools/cowtop/measure/measure_options.h>

namespace cowshed::cowtop {

// Is told of a measurement while it runs.
class Observer {
 public:
  virtual ~Observer() = default;
  // After each sample; the last time after all have ended or Ctrl-C.
  virtual void sampled(const cow::Backend& backend) = 0;

  // Between samples, and before the first, readable() is called whenever this descriptor is; -1:
  // there is none.
  virtual int fd() const { return -1; }
  // False: ends the measurement of what was attached to; that of a command goes on to its end.
  virtual bool readable() { return true; }
  // By Ctrl-C or another signal, which a command gets as well.
  virtual void asked_to_end() {}
};

struct Measured {
  std::optional<cow::Measurement> measurement;  // nullopt: nothing was measured
  // The command's, as complain.h has it; 0 of what was attached to.  Instead of 0 kOwnError, and
  // it has been said why, where nothing or not all was measured.
  int exit_status = 0;
};

// Runs the command, or attaches, and measures until the end or Ctrl-C: where processes of the
// selection may still come, until Ctrl-C.  Prints what goes wrong.
Measured measure(const MeasureOptions& options, Observer* observer = nullptr);
// The same by a backend of the caller's.
Measured measure_by(cow::OpenedBackend& opened, const MeasureOptions& options,
                    Observer* observer = nullptr);

}  // namespace cowshed::cowtop
