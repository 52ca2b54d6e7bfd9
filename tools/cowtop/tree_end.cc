#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <string>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/complain.h>
#include <cowshed/tools/cowtop/printable.h>
#include <cowshed/tools/cowtop/tree_end.h>

namespace cowshed::cowtop {
namespace {

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
    const Process id = {process.pid, process.start_ns};
    int failed = 0;
    // It was alive in this sample: no other can have its PID but in the moment since.
    if (age >= kTimeToEnd) {
      failed = ::kill(process.pid, SIGKILL);
    } else if (!asked_.contains(id) && !refused_.contains(id)) {
      failed = ::kill(process.pid, SIGTERM);
      // Not one that has ended since the sample.
      if (failed == 0) asked_.insert(id);
    }
    if (failed != 0 && errno == EPERM) refused_.insert(id);
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
