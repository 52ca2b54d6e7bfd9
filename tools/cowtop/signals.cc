#include <cerrno>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/signals.h>

namespace cowshed::cowtop {

namespace {

sigset_t end_signals() {
  sigset_t mask;
  ::sigemptyset(&mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&mask, signal);
  return mask;
}

}  // namespace

Expected<EndSignals> EndSignals::open() {
  const sigset_t mask = end_signals();
  if (::sigprocmask(SIG_BLOCK, &mask, nullptr) != 0) return system_error("sigprocmask", errno);
  ::signal(SIGPIPE, SIG_IGN);
  // Inherited as ignored, it would have the kernel reap the command before its status is read.
  ::signal(SIGCHLD, SIG_DFL);
  const int fd = ::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) return system_error("signalfd", errno);
  return EndSignals(fd);
}

EndSignals::EndSignals(EndSignals&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

EndSignals::~EndSignals() {
  if (fd_ >= 0) ::close(fd_);
}

std::optional<signalfd_siginfo> EndSignals::next() {
  signalfd_siginfo info;
  if (::read(fd_, &info, sizeof info) != sizeof info) return std::nullopt;
  return info;
}

HeldEndSignals::HeldEndSignals() {
  const sigset_t mask = end_signals();
  ::pthread_sigmask(SIG_BLOCK, &mask, &before_);
}

HeldEndSignals::~HeldEndSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

std::optional<int> HeldEndSignals::next() {
  const sigset_t mask = end_signals();
  const timespec at_once{};
  const int signal = ::sigtimedwait(&mask, nullptr, &at_once);
  return signal > 0 ? std::optional(signal) : std::nullopt;
}

}  // namespace cowshed::cowtop
