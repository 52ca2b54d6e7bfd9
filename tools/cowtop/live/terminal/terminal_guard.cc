#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cowshed/tools/cowtop/live/terminal/terminal_guard.h>

namespace cowshed::cowtop::live::terminal_guard {
namespace {

// Without a handler, all other signals end the process (signal(7)).
constexpr std::array kEvents = {SIGTSTP, SIGCONT, SIGWINCH};
constexpr std::array kLeft = {SIGCHLD, SIGURG, SIGTTIN, SIGTTOU, SIGKILL, SIGSTOP};

template <class Signals>
bool contains(const Signals& signals, int signal) {
  return std::ranges::find(signals, signal) != signals.end();
}

constexpr int kPatienceMs = 1000;

struct Saved {
  pid_t owner = 0;
  int fd = -1;
  int event_fd = -1;
  termios settings{};
  std::array<char, 256> sequence{};
  std::size_t sequence_size = 0;
  std::array<struct sigaction, NSIG> actions{};
};

Saved saved;  // read by the handlers
std::atomic<bool> has_stop{false};
std::atomic<bool> has_redraw{false};
static_assert(std::atomic<bool>::is_always_lock_free);
alignas(16) std::array<char, 65536> handler_stack;

void restore_terminal() {
  // A child inherits the handlers until its exec.
  if (::getpid() != saved.owner) return;
  ::tcsetattr(saved.fd, TCSANOW, &saved.settings);
  const char* next = saved.sequence.data();
  const char* end = next + saved.sequence_size;
  while (next < end) {
    const ssize_t written = ::write(saved.fd, next, static_cast<std::size_t>(end - next));
    if (written > 0) next += written;
    if (written >= 0 || errno == EINTR) continue;
    // The terminal may be stopped or slow.
    pollfd room{saved.fd, POLLOUT, 0};
    if (errno != EAGAIN || ::poll(&room, 1, kPatienceMs) <= 0) return;
  }
}

void on_end(int signal) {
  restore_terminal();
  ::sigaction(signal, &saved.actions[static_cast<std::size_t>(signal)], nullptr);
  ::raise(signal);  // arrives when this handler returns
}

void on_event(int signal) {
  const int error = errno;
  (signal == SIGTSTP ? has_stop : has_redraw) = true;
  const std::uint64_t one = 1;
  static_cast<void>(!::write(saved.event_fd, &one, sizeof one));
  errno = error;
}

void handle(int signal, struct sigaction& before) {
  ::sigaction(signal, nullptr, &before);
  if (before.sa_handler == SIG_IGN) return;
  const bool is_event = contains(kEvents, signal);
  struct sigaction action{};
  action.sa_handler = is_event ? on_event : on_end;
  ::sigfillset(&action.sa_mask);  // SIGTTOU would stop the handler
  action.sa_flags = SA_ONSTACK | (is_event ? SA_RESTART : 0);
  ::sigaction(signal, &action, nullptr);
}

}  // namespace

void begin(int fd, const termios& settings, const std::string& sequence) {
  saved.owner = ::getpid();
  saved.fd = fd;
  saved.settings = settings;
  saved.sequence_size = std::min(sequence.size(), saved.sequence.size());
  std::memcpy(saved.sequence.data(), sequence.data(), saved.sequence_size);
  saved.event_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  stack_t stack{};
  stack.ss_sp = handler_stack.data();
  stack.ss_size = handler_stack.size();
  ::sigaltstack(&stack, nullptr);
  for (int signal = 1; signal < NSIG; ++signal)
    if (!contains(kLeft, signal)) handle(signal, saved.actions[static_cast<std::size_t>(signal)]);
}

void end() {
  for (int signal = 1; signal < NSIG; ++signal) {
    if (contains(kLeft, signal)) continue;
    struct sigaction now{};
    ::sigaction(signal, nullptr, &now);
    if (now.sa_handler != on_end && now.sa_handler != on_event)
      continue;  // SIGPIPE is ignored since
    ::sigaction(signal, &saved.actions[static_cast<std::size_t>(signal)], nullptr);
  }
  ::close(saved.event_fd);
  saved.event_fd = -1;
}

int event_fd() { return saved.event_fd; }

Events take() {
  std::uint64_t ignored = 0;
  static_cast<void>(!::read(saved.event_fd, &ignored, sizeof ignored));
  return {has_stop.exchange(false), has_redraw.exchange(false)};
}

void stop() {
  struct sigaction handler{};
  struct sigaction usual{};
  usual.sa_handler = SIG_DFL;
  ::sigaction(SIGTSTP, &usual, &handler);
  ::raise(SIGTSTP);
  ::sigaction(SIGTSTP, &handler, nullptr);
}

}  // namespace cowshed::cowtop::live::terminal_guard
