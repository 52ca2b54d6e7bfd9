#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <poll.h>
#include <sstream>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/command.h>
#include <cowshed/cow/copy_diffs.h>
#include <cowshed/cow/exit_diffs.h>
#include <cowshed/tools/cowtop/exit_status.h>
#include <cowshed/tools/cowtop/json_report.h>
#include <cowshed/tools/cowtop/report_file.h>
#include <cowshed/tools/cowtop/run.h>
#include <cowshed/tools/cowtop/signals.h>
#include <cowshed/tools/cowtop/table_report.h>

namespace cowshed::cowtop {
namespace {

void complain(std::string_view message) { std::cerr << "cowtop: " << message << std::endl; }

int own_error(const Error& error) {
  complain(error.message);
  return kOwnError;
}

// Waits for a signal, for the end of the command (`pidfd`, -1 for none) or for the next sample.
void wait_for_event(int signal_fd, int pidfd, std::chrono::milliseconds timeout) {
  std::array<pollfd, 2> events{{{signal_fd, POLLIN, 0}, {pidfd, POLLIN, 0}}};
  ::poll(events.data(), events.size(), static_cast<int>(timeout.count()));
}

bool has_ended(pid_t pid) {
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
    return false;
  }
  // A tracer's waits show stops, too, whatever they ask for (kernel/exit.c, wait_consider_task).
  const bool is_end =
      info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
  return info.si_pid == pid && is_end;
}

Expected<void> report(const Options& options, ReportFile& file,
                      const cow::Measurement& measurement) {
  return file.write(options.json ? json_report(measurement) : table_report(measurement));
}

// The byte diff, as it was asked for.
class Diffs {
 public:
  // After the command has been forked and the signals are EndSignals', before it is released.
  static Expected<Diffs> start(Diff asked, pid_t root, cow::ExitDiffs::Root kind) {
    Diffs diffs;
    if (asked == Diff::at_intervals) diffs.at_intervals_.emplace(root);
    if (asked == Diff::at_exit) {
      auto started = cow::ExitDiffs::start(root, kind);
      if (!started) return tl::make_unexpected(std::move(started.error()));
      diffs.at_exit_ = std::move(*started);
      if (!diffs.at_exit_->refusal().empty()) complain(diffs.at_exit_->refusal());
    }
    return diffs;
  }
  void sample() {
    if (at_intervals_) at_intervals_->sample();
  }
  void end(cow::Measurement& measurement) {
    if (at_intervals_) at_intervals_->add_to(measurement);
    if (at_exit_) at_exit_->end(measurement);
  }

 private:
  std::optional<cow::CopyDiffs> at_intervals_;
  std::unique_ptr<cow::ExitDiffs> at_exit_;
};

// Where execvp(3) finds it; empty: nowhere.
std::string file_of(const std::string& command) {
  if (command.find('/') != std::string::npos) {
    return ::access(command.c_str(), F_OK) == 0 ? command : "";
  }
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/bin:/usr/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    std::string file = (folder.empty() ? "." : folder) + "/" + command;
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  return {};
}

// ENOENT of a file that is there is about what is to run it (execve(2)).
std::string missing_interpreter(const std::string& file) {
  std::ifstream script(file);
  std::string line;
  if (script.get() == '#' && script.get() == '!' && std::getline(script, line)) {
    const auto begin = std::min(line.find_first_not_of(" \t"), line.size());
    return "its interpreter " + line.substr(begin, line.find_first_of(" \t\r", begin) - begin);
  }
  return "the loader that its ELF header names";
}

int exec_failure(const std::string& command, int error) {
  if (error == ENOENT || error == ENOTDIR) {
    if (const std::string file = file_of(command); !file.empty()) {
      complain(fmt::format("{}: cannot be run: {} is not there", file, missing_interpreter(file)));
      return kNotFound;
    }
    complain(command + ": command not found");
    return kNotFound;
  }
  complain(fmt::format("{}: cannot be run: {}", command, std::generic_category().message(error)));
  return kNotExecutable;
}

int run_command(const Options& options, cow::OpenedBackend& opened, ReportFile& file) {
  cow::Backend& backend = *opened.backend;
  auto command = cow::Command::fork(options.command);
  if (!command) return own_error(command.error());
  auto signals = EndSignals::open();
  if (!signals) return own_error(signals.error());
  const pid_t pid = command->pid();
  if (const auto tracked = backend.track_command(pid); !tracked) return own_error(tracked.error());
  auto diffs = Diffs::start(options.diff, pid, cow::ExitDiffs::Root::own_child);
  if (!diffs) return own_error(diffs.error());
  if (const auto released = command->release(); !released) {
    return exec_failure(options.command[0], released.error().system_errno);
  }
  if (!opened.notice.empty()) complain(opened.notice);

  std::string sampling_error;
  while (!has_ended(pid)) {
    diffs->sample();
    if (const auto sampled = backend.sample(); !sampled) sampling_error = sampled.error().message;
    wait_for_event(signals->fd(), command->pidfd(), backend.interval());
    while (const auto signal = signals->next()) {
      // What the terminal sends, it sends to the command as well.
      if (signal->ssi_code == SI_KERNEL) continue;
      ::syscall(SYS_pidfd_send_signal, command->pidfd(), signal->ssi_signo, nullptr, 0);
    }
  }
  if (const auto sampled = backend.sample(); !sampled) sampling_error = sampled.error().message;
  const auto status = command->wait();
  if (!status) return own_error(status.error());

  cow::Measurement measurement = backend.measurement();
  diffs->end(measurement);
  for (cow::ProcessCopies& process : measurement.processes) {
    if (process.pid != pid || process.role != cow::Role::root) continue;
    process.alive = false;
    if (WIFEXITED(*status)) process.exit_status = WEXITSTATUS(*status);
    process.signal = WIFSIGNALED(*status) ? WTERMSIG(*status) : 0;
  }
  if (!sampling_error.empty()) complain("incomplete: " + sampling_error);
  if (const auto written = report(options, file, measurement); !written) {
    return own_error(written.error());
  }
  if (!sampling_error.empty()) return kOwnError;
  return WIFSIGNALED(*status) ? kSignalBase + WTERMSIG(*status) : WEXITSTATUS(*status);
}

int run_attached(const Options& options, cow::OpenedBackend& opened, ReportFile& file) {
  cow::Backend& backend = *opened.backend;
  auto signals = EndSignals::open();
  if (!signals) return own_error(signals.error());
  const auto attached = backend.attach(*options.attach_pid);
  if (!attached) return own_error(attached.error());
  auto diffs = Diffs::start(options.diff, *options.attach_pid, cow::ExitDiffs::Root::running);
  if (!diffs) return own_error(diffs.error());
  if (!opened.notice.empty()) complain(opened.notice);
  complain(fmt::format("attached to {} process{} by the {} backend; Ctrl-C ends and reports",
                       *attached, *attached == 1 ? "" : "es", backend.name()));
  for (;;) {
    diffs->sample();
    if (const auto sampled = backend.sample(); !sampled) return own_error(sampled.error());
    if (!backend.any_alive()) break;
    wait_for_event(signals->fd(), -1, backend.interval());
    if (signals->next()) {
      if (const auto sampled = backend.sample(); !sampled) return own_error(sampled.error());
      break;
    }
  }
  cow::Measurement measurement = backend.measurement();
  diffs->end(measurement);
  const auto written = report(options, file, measurement);
  return written ? 0 : own_error(written.error());
}

}  // namespace

int run(const Options& options) {
  auto file = ReportFile::open(options.output);
  if (!file) return own_error(file.error());
  auto opened = cow::open_backend(options.backend, options.sampling, options.timing);
  if (!opened) return own_error(opened.error());
  return options.attach_pid ? run_attached(options, *opened, *file)
                            : run_command(options, *opened, *file);
}

}  // namespace cowshed::cowtop
