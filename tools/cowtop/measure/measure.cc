#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <future>
#include <malloc.h>
#include <poll.h>
#include <string>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/command.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/measure/command_cgroup.h>
#include <cowshed/tools/cowtop/measure/measure.h>
#include <cowshed/tools/cowtop/measure/signals.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

// Some 5 MB of them.
constexpr std::size_t kMostEnded = 1000;
constexpr std::size_t kMostEndedWithSites = 125;

Measured failed(const Error& error) { return {std::nullopt, own_error(error)}; }

bool has_ended(pid_t pid) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid;
}

// When all pages are to be compared.
class Comparisons {
 public:
  explicit Comparisons(bool are_wanted) : are_wanted_(are_wanted) {}
  bool are_due() {
    if (!are_wanted_ || std::chrono::steady_clock::now() < begin_ + next_) return false;
    next_ *= 2;
    return true;
  }

 private:
  bool are_wanted_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::chrono::seconds next_{1};
};

int exec_failure(const std::string& command, int error) {
  complain(fmt::format("{}: cannot be run: {}", command, std::generic_category().message(error)));
  return error == ENOENT || error == ENOTDIR ? kNotFound : kNotExecutable;
}

Measured measure_command(const MeasureOptions& options, cow::OpenedBackend& opened,
                         Observer* observer) {
  cow::Backend& backend = *opened.backend;
  auto command = cow::Command::fork(options.command, options.user, options.streams);
  if (!command) return failed(command.error());
  auto signals = EndSignals::open();
  if (!signals) return failed(signals.error());
  const pid_t pid = command->pid();
  std::optional<CommandCgroup> cgroup = CommandCgroup::make(pid);
  if (const auto tracked = backend.track_command(pid); !tracked) return failed(tracked.error());
  if (const auto released = command->release(); !released) {
    if (released.error().code == ErrorCode::permission_denied) return failed(released.error());
    return {std::nullopt, exec_failure(options.command[0], released.error().system_errno)};
  }
  if (!opened.notice.empty()) complain(opened.notice);

  std::string sampling_error;
  Comparisons comparisons(options.compares_all);
  const auto sample = [&] {
    if (comparisons.are_due()) backend.want_memory();
    if (const auto sampled = backend.sample(); !sampled) sampling_error = sampled.error().message;
    bound_ended(options, backend);
    if (observer != nullptr) observer->sampled(backend);
  };
  while (!has_ended(pid)) {
    sample();
    wait_for_event(signals->fd(), command->pidfd(), backend, observer);
    while (const auto signal = signals->next()) {
      if (observer != nullptr) observer->asked_to_end();
      // The terminal sends its signals to the command as well.  Only a hangup goes to the session
      // leader alone (drivers/tty/tty_jobctrl.c, tty_signal_session_leader).
      const bool is_ours_alone = signal->ssi_signo == SIGHUP && ::getsid(0) == ::getpid();
      if (signal->ssi_code == SI_KERNEL && !is_ours_alone) continue;
      ::syscall(SYS_pidfd_send_signal, command->pidfd(), signal->ssi_signo, nullptr, 0);
    }
  }
  // Helpers of a program, such as a pool's, end a moment after it.
  constexpr auto kPatience = std::chrono::milliseconds(500);
  const auto begin = std::chrono::steady_clock::now();
  for (sample(); backend.any_alive() && std::chrono::steady_clock::now() < begin + kPatience;
       sample()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const auto status = command->wait();
  if (!status) return failed(status.error());

  cow::Measurement measurement = backend.measurement();
  if (cgroup) measurement.memory_cgroup = cgroup->memory();
  for (cow::ProcessCopies& process : measurement.processes) {
    if (process.pid != pid || process.role != cow::Role::root) continue;
    process.alive = false;
    if (WIFEXITED(*status)) process.exit_status = WEXITSTATUS(*status);
    if (WIFSIGNALED(*status)) process.signal = WTERMSIG(*status);
  }
  if (!sampling_error.empty()) complain("incomplete: " + sampling_error);
  const int exit_status =
      WIFSIGNALED(*status) ? kSignalBase + WTERMSIG(*status) : WEXITSTATUS(*status);
  const int own_status = sampling_error.empty() ? 0 : kOwnError;
  return {std::move(measurement), exit_status != 0 ? exit_status : own_status};
}

// At the end all pages are compared, for a second or more of 3 GiB.
void announce_comparison(const cow::Backend& backend) {
  constexpr std::uint64_t kMuch = std::uint64_t{3} << 30U;
  std::uint64_t bytes = 0;
  for (const cow::ProcessCopies& each : backend.measurement(cow::CodeOf::none()).processes)
    if (each.alive) bytes += each.memory.value_or(cow::MemorySample()).private_bytes;
  if (bytes >= kMuch)
    complain(fmt::format("comparing the pages of {}; Ctrl-C again ends that", mib(bytes)));
}

// A descriptor that is readable after the time; none without one.
Expected<FileDescriptor> start_timer(std::optional<std::chrono::seconds> duration) {
  if (!duration) return FileDescriptor();
  FileDescriptor timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  const itimerspec once{{}, {duration->count(), 0}};
  if (!timer || ::timerfd_settime(timer.get(), 0, &once, nullptr) != 0)
    return system_error("timerfd", errno);
  return timer;
}

bool has_expired(const FileDescriptor& timer) {
  std::uint64_t times = 0;
  return timer && ::read(timer.get(), &times, sizeof times) == sizeof times;
}

Measured measure_attached(const MeasureOptions& options, cow::OpenedBackend& opened,
                          Observer* observer, bool ended) {
  cow::Backend& backend = *opened.backend;
  auto signals = EndSignals::open();
  if (!signals) return failed(signals.error());
  auto selected = SelectedProcesses::open(*options.selection);
  if (!selected) return failed(selected.error());
  const auto attached = selected->attach(backend);
  if (!attached) return failed(attached.error());
  if (const std::string refused = refused_line(*attached); !refused.empty()) complain(refused);
  if (!opened.notice.empty()) complain(opened.notice);
  auto timer = start_timer(options.duration);
  if (!timer) return failed(timer.error());
  complain(fmt::format("attached to {} process{} by the {} backend, until {}{}",
                       attached->processes, attached->processes == 1 ? "" : "es", backend.name(),
                       selected->grows() ? "Ctrl-C or SIGTERM" : "they end, Ctrl-C or SIGTERM",
                       options.duration ? fmt::format(", at most {} s", options.duration->count())
                                        : "; for a minute: --duration 60"));
  std::string failure;
  Comparisons comparisons(options.compares_all);
  for (;;) {
    if (comparisons.are_due()) backend.want_memory();
    if (const auto sampled = backend.sample(); !sampled) {
      failure = sampled.error().message;
      break;
    }
    bound_ended(options, backend);
    if (observer != nullptr) observer->sampled(backend);
    if (ended || (!backend.any_alive() && !selected->grows())) break;
    if (const auto found = selected->attach_new(backend); !found) {
      failure = found.error().message;
      break;
    }
    ended = !wait_for_event(signals->fd(), timer->get(), backend, observer);
    const bool is_asked = signals->next().has_value();
    if (is_asked && observer != nullptr) observer->asked_to_end();
    ended = ended || is_asked || has_expired(*timer);
    if (!ended) continue;
    backend.want_memory();
    announce_comparison(backend);
  }
  cow::Measurement measurement = backend.measurement();
  if (!failure.empty()) complain("incomplete: " + failure);
  return {std::move(measurement), failure.empty() ? 0 : kOwnError};
}

struct Opening {
  Expected<cow::OpenedBackend> backend;
  bool ended = false;         // the observer has seen enough
  std::optional<int> signal;  // that asked to end
};

// Probes take a while to load; meanwhile the observer's keys are answered.
Opening open_backend(const MeasureOptions& options, Observer* observer) {
  const auto open = [&] { return cow::open_backend(options.backend, options.sampling); };
  if (observer == nullptr || observer->fd() < 0) return {open(), false, std::nullopt};
  constexpr auto kBetweenLooks = std::chrono::milliseconds(10);
  HeldEndSignals signals;
  auto backend = std::async(std::launch::async, open);
  bool ended = false;
  std::optional<int> signal;
  while (backend.wait_for(kBetweenLooks) != std::future_status::ready) {
    pollfd keys{ended ? -1 : observer->fd(), POLLIN, 0};
    if (::poll(&keys, 1, 0) > 0) ended = !observer->readable();
    if (!signal) signal = signals.next();
  }
  if (!signal) signal = signals.next();  // it came after the last look
  return {backend.get(), ended, signal};
}

}  // namespace

bool wait_for_event(int signal_fd, int end_fd, cow::Backend& backend, Observer* observer) {
  using std::chrono::steady_clock;
  const auto end = steady_clock::now() + backend.interval();
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - steady_clock::now());
    if (left.count() < 0) return true;
    const auto pending = backend.pending_interval();
    std::array<pollfd, 4> events{{{signal_fd, POLLIN, 0},
                                  {end_fd, POLLIN, 0},
                                  {observer != nullptr ? observer->fd() : -1, POLLIN, 0},
                                  {pending ? -1 : backend.pending_fd(), POLLIN, 0}}};
    const auto step = std::min(left, pending.value_or(left));
    const int ready = ::poll(events.data(), events.size(), static_cast<int>(step.count()));
    if (events[2].revents != 0 && !observer->readable()) return false;
    if (events[0].revents != 0 || events[1].revents != 0) return true;
    if (ready == 0 && step == left) return true;
    if (backend.take_pending()) return true;
  }
}

void bound_ended(const MeasureOptions& options, cow::Backend& backend) {
  if (options.keeps_each_process) return;
  backend.merge_ended(options.sampling.period == 0 ? kMostEnded : kMostEndedWithSites);
}

Measured measure(const MeasureOptions& options, Observer* observer) {
  // What is large for a moment, as debug information is, goes back: glibc's threshold would grow.
  constexpr int kMappedBytes = 128 << 10;
  ::mallopt(M_MMAP_THRESHOLD, kMappedBytes);
  auto opening = open_backend(options, observer);
  ::malloc_trim(0);  // loading the probes takes megabytes
  if (opening.signal) {
    complain(fmt::format("{} before the probes were loaded: {}", ::strsignal(*opening.signal),
                         options.selection ? "nothing was measured" : "the command was not run"));
    return {std::nullopt, kSignalBase + *opening.signal};
  }
  if (!opening.backend) return failed(opening.backend.error());
  return options.selection ? measure_attached(options, *opening.backend, observer, opening.ended)
                           : measure_command(options, *opening.backend, observer);
}

Measured measure_by(cow::OpenedBackend& opened, const MeasureOptions& options, Observer* observer) {
  return options.selection ? measure_attached(options, opened, observer, false)
                           : measure_command(options, opened, observer);
}

}  // namespace cowshed::cowtop
