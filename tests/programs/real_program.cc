#include <charconv>
#include <csignal>
#include <fstream>
#include <string_view>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/tests/probes/subject.h>
#include <cowshed/tests/programs/real_program.h>

namespace cowshed::test {

namespace fs = std::filesystem;

pid_t pid_of(const std::string& out) {
  constexpr std::string_view kReady = "ready ";
  const auto at = out.find(kReady);
  pid_t pid = 0;
  if (at != std::string::npos) {
    std::from_chars(out.data() + at + kReady.size(), out.data() + out.size(), pid);
  }
  return pid;
}

namespace {

// What an assertion that failed has left running has come to be this process's child.
void end_orphans() {
  for (bool any = true; any;) {
    any = false;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) {
      std::ifstream children(task.path() / "children");
      for (pid_t child = 0; children >> child;) {
        any = true;
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
      }
    }
  }
}

}  // namespace

void RealProgram::SetUp() {
  for (const std::string& program : needs_) {
    if (!fs::exists(program)) GTEST_SKIP() << "no " << program;
  }
  if (const std::string reason = cannot_probe(); !reason.empty()) GTEST_SKIP() << reason;
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to ask taskstats";
  delay_accounting_.emplace("/proc/sys/kernel/task_delayacct", "1");
  if (!wpcopy_count(::getpid())) GTEST_SKIP() << "this kernel's taskstats does not count copies";
  folder_ = fs::temp_directory_path() / ("real_programs." + std::to_string(::getpid()));
  fs::create_directory(folder_);
  accounts_.emplace();
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

void RealProgram::TearDown() {
  end_orphans();
  accounts_.reset();
  delay_accounting_.reset();
  if (!folder_.empty()) fs::remove_all(folder_);
}

std::string RealProgram::write(const std::string& name, const std::string& text) const {
  std::ofstream(file(name)) << text;
  return file(name);
}

std::vector<std::string> RealProgram::cowtop(const std::vector<std::string>& command,
                                             const char* period) const {
  std::vector<std::string> arguments = {COWTOP, "--json", "--sites",           "-c",
                                        period, "-o",     file("report.json"), "--"};
  arguments.insert(arguments.end(), command.begin(), command.end());
  return arguments;
}

MeasuredRun RealProgram::finish(Subprocess& command) {
  MeasuredRun run;
  const Finished finished = command.finish();
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  std::ifstream report(file("report.json"));
  run.report = Json::parse(report, nullptr, false);
  run.independent = accounts_->wpcopy_counts();
  expect_agreement(run);
  return run;
}

MeasuredRun RealProgram::measure(const std::vector<std::string>& command) {
  Subprocess started(cowtop(command, kSeldom));
  return finish(started);
}

}  // namespace cowshed::test
