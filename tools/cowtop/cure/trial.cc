#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/base/clock.h>
#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/rate_limit.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/cure/in_service.h>
#include <cowshed/tools/cowtop/cure/trial.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/measure/measure.h>
#include <cowshed/tools/cowtop/recording/measurement_file.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>

namespace cowshed::cowtop {
namespace {

// Looks ten times a second at the processes' threads, and at the memory of all.
class Looks : public Observer {
 public:
  void sampled(const cow::Backend& backend) override {
    const std::uint64_t begin = monotonic_ns();
    if (!pace_.is_due(begin)) return;
    const cow::Measurement now = backend.measurement(cow::CodeOf::none());
    for (const cow::ProcessCopies& process : now.processes)
      if (const auto stat = proc_.stat(process.pid); stat && process.alive)
        most_threads_ = std::max(most_threads_, static_cast<int>(stat->threads));
    in_service_.look(now.taken_ns, now);
    const std::uint64_t end = monotonic_ns();
    pace_.ran(end, end - begin);
  }
  int most_threads() const { return most_threads_; }
  const InService& in_service() const { return in_service_; }

 private:
  cow::ProcFiles proc_;
  int most_threads_ = 1;
  InService in_service_;
  internal::DutyCycle pace_{20, 100'000'000};
};

struct TrialFiles {
  FileDescriptor input{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  FileDescriptor output = nameless_file();
  FileDescriptor error = nameless_file();
  FileDescriptor report = nameless_file();
  FileDescriptor seen = nameless_file();
};

std::string name_of(const FileDescriptor& file) {
  return fmt::format("/proc/self/fd/{}", file.get());
}

std::string read_all(const FileDescriptor& file) {
  constexpr std::size_t kMost = std::size_t{64} << 20;
  std::string text(kMost, '\0');
  std::ifstream stream(name_of(file), std::ios::binary);
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() == kMost) text += fmt::format("\n{} bytes", ::lseek(file.get(), 0, SEEK_END));
  text.shrink_to_fit();
  return text;
}

[[noreturn]] void run(const MeasureOptions& options, const TrialFiles& files) {
  Looks looks;
  const Measured measured = measure(options, &looks);
  std::ofstream seen(name_of(files.seen));
  seen << looks.most_threads();
  if (measured.measurement) {
    std::ofstream report(name_of(files.report), std::ios::binary);
    report << json_report(*measured.measurement);
    report.close();
    if (const auto bytes = looks.in_service().peak_bytes(*measured.measurement))
      seen << " " << *bytes;
    if (!report) complain("what was measured cannot be kept: no space in the temporary folder?");
  }
  seen.close();
  std::_Exit(measured.exit_status);
}

std::atomic<pid_t> trial_pid = 0;
std::atomic<int> last_signal = 0;

// The terminal sends its signals to the whole group.
void pass_on(int signal, siginfo_t* info, void* /*context*/) {
  last_signal = signal;
  if (info->si_code != SI_KERNEL && trial_pid > 0) ::kill(trial_pid, signal);
}

}  // namespace

PassedSignals::PassedSignals() {
  struct sigaction action{};
  action.sa_sigaction = pass_on;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], nullptr, &before_[i]);
    if (before_[i].sa_handler != SIG_IGN) ::sigaction(kSignals[i], &action, nullptr);
  }
}

std::optional<int> PassedSignals::asked_by() {
  const int signal = last_signal;
  return signal == 0 ? std::nullopt : std::optional(signal);
}

void PassedSignals::give_back() const {
  for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
}

Expected<Trial> run_trial(MeasureOptions options,
                          const std::vector<std::pair<std::string, std::string>>& environment,
                          const PassedSignals& signals) {
  const TrialFiles files;
  if (!files.input || !files.output || !files.error || !files.report || !files.seen)
    return system_error("a temporary file (/tmp) for the output of the command", errno);
  options.streams = {files.input.get(), files.output.get(), files.error.get()};
  const pid_t pid = ::fork();
  if (pid < 0) return system_error("cannot measure the command", errno);
  if (pid == 0) {
    signals.give_back();
    // It came before, and would be lost: the command would be started.
    if (const auto signal = PassedSignals::asked_by()) std::_Exit(kSignalBase + *signal);
    for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
    run(options, files);
  }
  trial_pid = pid;
  if (const auto signal = PassedSignals::asked_by()) ::kill(pid, *signal);
  int status = 0;
  if (TEMP_FAILURE_RETRY(::waitpid(pid, &status, 0)) < 0) return system_error("waitpid", errno);
  trial_pid = 0;
  Trial trial;
  trial.outcome = {WIFSIGNALED(status) ? kSignalBase + WTERMSIG(status) : WEXITSTATUS(status),
                   read_all(files.output), read_all(files.error)};
  std::ifstream seen(name_of(files.seen));
  seen >> trial.threads;
  if (std::uint64_t bytes = 0; seen >> bytes) trial.in_service_bytes = bytes;
  if (::lseek(files.report.get(), 0, SEEK_END) > 0) {
    TRY(auto file, read_measurement(name_of(files.report)));
    trial.measurement = std::move(file.measurement);
  }
  return trial;
}

}  // namespace cowshed::cowtop
