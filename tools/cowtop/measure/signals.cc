#include <cerrno>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/measure/signals.h>

namespace cowshed::cowtop {

namespace {

// Blocked, it would be taken although it is ignored (sig_ignored() in the kernel's signal.c).
bool is_ignored(int signal) {
  struct sigaction action{};
  return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

// From the terminal to one in the background, which a shell without job control has ignore it.
bool is_of_others(int signal, int code) { return code == SI_KERNEL && is_ignored(signal); }

sigset_t end_signals() {
  sigset_t mask;
  ::sigemptyset(&mask);
  for (const int signal : {SIGINT, SIGTERM, SIGQUIT}) ::sigaddset(&mask, signal);
  if (!is_ignored(SIGHUP)) ::sigaddset(&mask, SIGHUP);
  return mask;
}

}  // namespace

Expected<EndSignals> EndSignals::open() {
  const sigset_t mask = end_signals();
  if (::sigprocmask(SIG_BLOCK, &mask, nullptr) != 0) return system_error("sigprocmask", errno);
  ::signal(SIGPIPE, SIG_IGN);
  // Inherited as ignored, it would have the kernel reap the command before its status is read.
  ::signal(SIGCHLD, SIG_DFL);
  FileDescriptor file(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!file) return system_error("signalfd", errno);
  return EndSignals(std::move(file));
}

std::optional<signalfd_siginfo> EndSignals::next() {
  signalfd_siginfo info;
  while (::read(file_.get(), &info, sizeof info) == sizeof info)
    if (!is_of_others(static_cast<int>(info.ssi_signo), info.ssi_code)) return info;
  return std::nullopt;
}

HeldEndSignals::HeldEndSignals() {
  const sigset_t mask = end_signals();
  ::pthread_sigmask(SIG_BLOCK, &mask, &before_);
}

HeldEndSignals::~HeldEndSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

std::optional<int> HeldEndSignals::next() {
  const sigset_t mask = end_signals();
  const timespec at_once{};
  siginfo_t info;
  for (int signal = 0; (signal = ::sigtimedwait(&mask, &info, &at_once)) > 0;)
    if (!is_of_others(signal, info.si_code)) return signal;
  return std::nullopt;
}

}  // namespace cowshed::cowtop
