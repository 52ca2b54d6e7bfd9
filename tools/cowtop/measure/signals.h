#pragma once

#include <csignal>
#include <optional>
#include <sys/signalfd.h>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cowtop {

// Turns the end signals (SIGINT, SIGTERM, SIGQUIT, and SIGHUP unless it is ignored) into readable
// events for the rest of the process's life.  Also ignores SIGPIPE and resets SIGCHLD.  Open it
// after the command is forked, which must not inherit the mask.  Move-only, owns a descriptor.
class EndSignals {
 public:
  static Expected<EndSignals> open();

  int fd() const { return file_.get(); }
  // Returns the next pending signal.  It skips terminal signals that were ignored, as SIGINT in a
  // script's background job.  `ssi_code` is SI_KERNEL if a terminal sent the signal to the whole
  // foreground process group.
  std::optional<signalfd_siginfo> next();

 private:
  explicit EndSignals(FileDescriptor file) : file_(std::move(file)) {}
  FileDescriptor file_;
};

// Blocks the same signals during its life, in this thread and in threads that it starts.  Signals
// that next() has not taken arrive afterwards.
class HeldEndSignals {
 public:
  HeldEndSignals();
  HeldEndSignals(const HeldEndSignals&) = delete;
  HeldEndSignals& operator=(const HeldEndSignals&) = delete;
  ~HeldEndSignals();

  // Returns the number of a pending signal.
  std::optional<int> next();

 private:
  sigset_t before_;
};

}  // namespace cowshed::cowtop
