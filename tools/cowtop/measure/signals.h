#pragma once

#include <csignal>
#include <optional>
#include <sys/signalfd.h>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cowtop {

// Takes the signals that ask cowtop to end (SIGINT, SIGTERM, SIGQUIT, and SIGHUP unless it is
// ignored, as under nohup) as readable events for the rest of the process's life, ignores SIGPIPE
// and gives SIGCHLD its default.  Open it after the command has been forked: the command must not
// inherit the mask.  Move-only, owns a descriptor.
class EndSignals {
 public:
  static Expected<EndSignals> open();

  int fd() const { return file_.get(); }
  // The next signal that has come, if any; not one of a terminal that is ignored, as SIGINT is by
  // what a script has started in the background.  `ssi_code` is SI_KERNEL where a terminal sent it,
  // and then to the whole foreground process group.
  std::optional<signalfd_siginfo> next();

 private:
  explicit EndSignals(FileDescriptor file) : file_(std::move(file)) {}
  FileDescriptor file_;
};

// Holds the same signals back, from this thread and those that it starts, for as long as there is
// one of these; those that next() has not taken come afterwards.
class HeldEndSignals {
 public:
  HeldEndSignals();
  HeldEndSignals(const HeldEndSignals&) = delete;
  HeldEndSignals& operator=(const HeldEndSignals&) = delete;
  ~HeldEndSignals();

  // The number of one that has come, if any.
  std::optional<int> next();

 private:
  sigset_t before_;
};

}  // namespace cowshed::cowtop
