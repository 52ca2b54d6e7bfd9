#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/proc_files.h>
#include <cowshed/tools/cowtop/complain.h>
#include <cowshed/tools/cowtop/printable.h>
#include <cowshed/tools/cowtop/tree_end.h>

namespace cowshed::cowtop {
namespace {

// Sends a signal to the process that was measured, and to no later one with its PID.  An error
// number, or 0.
int send(const cow::ProcessCopies& process, int signal) {
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0));
  if (pidfd < 0) return errno;
  // Whoever has the PID now is whom the descriptor means.
  const auto stat = cow::ProcFiles().stat(process.pid);
  const bool is_it = stat && stat->start_ticks == process.start_ticks;
  const int error =
      !is_it ? ESRCH
             : (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0 ? 0 : errno);
  ::close(pidfd);
  return error;
}

constexpr auto kTimeToEnd = std::chrono::seconds(5);
constexpr auto kTimeToBeKilled = std::chrono::seconds(5);  // from then on

}  // namespace

bool TreeEnd::go_on(const cow::Measurement& measurement, pid_t ended) {
  const auto age = std::chrono::steady_clock::now() - begin_;
  const bool had_begun = has_begun();
  bool any_left = false;
  std::string cannot;
  for (const cow::ProcessCopies& process : measurement.processes) {
    // We may have been started by what we attached to.
    if (!process.alive || process.pid == ended || process.pid == ::getpid()) continue;
    const Process id = {process.pid, process.start_ticks};
    int error = 0;
    if (age >= kTimeToEnd) {
      error = send(process, SIGKILL);
    } else if (!asked_.contains(id) && !refused_.contains(id)) {
      error = send(process, SIGTERM);
      // Not one that has ended since the sample.
      if (error == 0) asked_.insert(id);
    }
    if (error == EPERM) refused_.insert(id);
    if (refused_.contains(id) || age >= kTimeToEnd + kTimeToBeKilled) {
      cannot += fmt::format("{}PID {} ({})", cannot.empty() ? "" : ", ", process.pid,
                            printable(process.comm));
    } else {
      any_left = true;
    }
  }
  if (!had_begun && has_begun()) complain("ending all that is measured");
  if (!any_left && !cannot.empty() && !std::exchange(has_complained_, true)) {
    complain("could not be ended: " + cannot);
  }
  return any_left;
}

bool TreeEnd::has_asked(pid_t pid) const {
  return std::any_of(asked_.begin(), asked_.end(),
                     [pid](const Process& each) { return each.first == pid; });
}

}  // namespace cowshed::cowtop
