#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <pty.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/subprocess.h>

namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::run;
using test::Subprocess;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

TEST(CowtopCommand, PassesTheExitStatusThrough) {
  EXPECT_EQ(run({COWTOP, "--", "true"}).exit_status(), 0);
  EXPECT_EQ(run({COWTOP, "--", "sh", "-c", "exit 42"}).exit_status(), 42);
  EXPECT_EQ(run({COWTOP, "sh", "-c", "exit 43"}).exit_status(), 43);
}

TEST(CowtopCommand, ASignalIs128PlusItsNumber) {
  const Finished killed = run({COWTOP, "--", "sh", "-c", "kill -SEGV $$"});
  EXPECT_EQ(killed.exit_status(), 128 + SIGSEGV);
  EXPECT_THAT(killed.out, HasSubstr("SIGSEGV"));
}

TEST(CowtopCommand, NotFoundAndNotExecutable) {
  const Finished missing = run({COWTOP, "--", "no-such-command"});
  EXPECT_EQ(missing.exit_status(), 127);
  EXPECT_THAT(missing.err, EndsWith("cowtop: no-such-command: command not found\n"));
  EXPECT_EQ(run({COWTOP, "--", ""}).exit_status(), 127);
  const Finished folder = run({COWTOP, "--", "/etc"});
  EXPECT_EQ(folder.exit_status(), 126);
  EXPECT_THAT(folder.err, EndsWith("cowtop: /etc: cannot be run: Permission denied\n"));
}

TEST(CowtopCommand, AScriptWhoseInterpreterIsMissingIsNamedWithIt) {
  const auto script = std::filesystem::temp_directory_path() /
                      ("cowshed-script-" + std::to_string(::getpid()) + ".sh");
  std::ofstream(script) << "#! /no/such/shell -e\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  const Finished finished = run({COWTOP, "--", script.string()});
  std::filesystem::remove(script);
  EXPECT_EQ(finished.exit_status(), 127);
  EXPECT_THAT(finished.err, EndsWith("cowtop: " + script.string() +
                                     ": cannot be run: its interpreter /no/such/shell is not "
                                     "there\n"));
}

TEST(CowtopCommand, WithFewDescriptorsItSaysSo) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer needs descriptors of its own";
#endif
  if (const auto possible = probe_support(); !possible) GTEST_SKIP() << possible.error().message;
  for (const char* limit : {"12", "16", "20", "26", "30"}) {
    const Finished finished =
        run({"sh", "-c", "ulimit -n " + std::string(limit) + "; exec " + COWTOP + " -- true"});
    EXPECT_EQ(finished.exit_status(), 0) << limit;
    EXPECT_THAT(finished.err, HasSubstr("raise the limit (ulimit -n 256)")) << limit;
    EXPECT_THAT(finished.err, Not(HasSubstr("libbpf"))) << limit;
  }
}

TEST(CowtopCommand, AReportThatIsCutShortIsTakenBack) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("cowshed-cut-" + std::to_string(::getpid()) + ".json");
  const Finished finished = run({"sh", "-c",
                                 std::string("trap '' XFSZ; ulimit -f 1; exec ") + COWTOP +
                                     " --json -o " + path.string() + " -- true"});
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_THAT(finished.err, HasSubstr("File too large; it is left empty"));
  EXPECT_TRUE(std::filesystem::is_empty(path));
  std::filesystem::remove(path);
}

TEST(CowtopCommand, TheReportFollowsWhatTheCommandPrinted) {
  const Finished finished = run({COWTOP, "--json", "--", "sh", "-c", "echo hello"});
  ASSERT_THAT(finished.out, StartsWith("hello\n{"));
  const Json report = Json::parse(finished.out.substr(6));
  EXPECT_EQ(report["schema"], "cowshed.run/2");
  EXPECT_EQ(report["processes"][0]["comm"], "sh");
  EXPECT_EQ(report["processes"][0]["exit_status"], 0);
  EXPECT_TRUE(report["processes"][0]["signal"].is_null());
}

TEST(CowtopCommand, OneRowPerProcess) {
  const Finished finished = run({COWTOP, "--", COPY_SUBJECT, "1000", "3", "500", "300", "5"});
  EXPECT_EQ(finished.exit_status(), 0);
  const std::string& table = finished.out;
  std::istringstream pids(table);
  for (int child = 0; child < 3; ++child) {
    std::string pid;
    ASSERT_TRUE(std::getline(pids, pid));
    EXPECT_THAT(table, HasSubstr("\n" + pid + "  "));
  }
  EXPECT_THAT(table, HasSubstr("4 processes"));
}

TEST(CowtopCommand, WithoutStandardOutputItDoesNotStart) {
  const Finished finished = run({COWTOP, "--", "sh", "-c", "echo started >&2"}, [] { ::close(1); });
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_EQ(finished.err, "cowtop: cannot write to standard output: Bad file descriptor\n");
}

TEST(CowtopCommand, WritesTheReportToAFile) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("cowtop-test-" + std::to_string(::getpid()) + ".json");
  const Finished finished = run({COWTOP, "--json", "-o", path.string(), "--", "echo", "hello"});
  EXPECT_EQ(finished.out, "hello\n");
  std::ifstream file(path);
  EXPECT_EQ(Json::parse(file)["schema"], "cowshed.run/2");
  std::filesystem::remove(path);
}

TEST(CowtopCommand, AReportThatCannotBeWrittenIsAnError) {
  const Finished nowhere = run({COWTOP, "-o", "/no/such/folder/x", "--", "echo", "ran"});
  EXPECT_EQ(nowhere.exit_status(), 125);
  EXPECT_EQ(nowhere.out, "") << "known before the command runs";
  EXPECT_EQ(nowhere.err, "cowtop: cannot write /no/such/folder/x: No such file or directory\n");
  const Finished full = run({COWTOP, "-o", "/dev/full", "--", "true"});
  EXPECT_EQ(full.exit_status(), 125);
  EXPECT_THAT(full.err, HasSubstr("/dev/full: No space left on device"));
  const Finished failed = run({COWTOP, "-o", "/dev/full", "--", "sh", "-c", "exit 3"});
  EXPECT_EQ(failed.exit_status(), 3) << "the command's own failure comes first";
  EXPECT_THAT(failed.err, HasSubstr("/dev/full: No space left on device"));
  for (const std::string option : {"--version", "--help"}) {
    const Finished none = run({"sh", "-c", std::string(COWTOP) + " " + option + " >/dev/full"});
    EXPECT_EQ(none.exit_status(), 125) << option;
    EXPECT_EQ(none.err, "cowtop: cannot write to standard output: No space left on device\n");
  }
}

TEST(CowtopCommand, ForwardsSignalsAndStillReports) {
  Subprocess cowtop(
      {COWTOP, "--", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"});
  ASSERT_THAT(cowtop.read_until("up\n").out, HasSubstr("up\n"));
  ::kill(cowtop.pid(), SIGTERM);
  const Finished finished = cowtop.finish();
  EXPECT_EQ(finished.exit_status(), 9);
  EXPECT_THAT(finished.out, HasSubstr("total copied"));
}

TEST(CowtopCommand, CtrlCAtATerminalStillPrintsTheSummary) {
  int terminal = -1;
  const pid_t pid = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  if (pid == 0) {
    ::execl(COWTOP, "cowtop", "--no-live", "--", "sh", "-c",
            "trap 'exit 3' INT; echo up; while :; do sleep 0.05; done", nullptr);
    ::_exit(126);
  }
  std::string printed;
  std::array<char, 4096> buffer;
  bool interrupted = false;
  for (ssize_t got = 1; got > 0;) {
    got = ::read(terminal, buffer.data(), buffer.size());
    if (got > 0) printed.append(buffer.data(), static_cast<std::size_t>(got));
    if (!interrupted && printed.find("up") != std::string::npos) {
      interrupted = true;
      ASSERT_EQ(::write(terminal, "\x03", 1), 1);
    }
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  ::close(terminal);
  EXPECT_EQ(WEXITSTATUS(status), 3) << printed;
  EXPECT_THAT(printed, HasSubstr("total copied"));
}

TEST(CowtopCommand, StartedWithChildrenIgnored) {
  const auto ignore_children = [] { ::signal(SIGCHLD, SIG_IGN); };
  EXPECT_EQ(run({COWTOP, "--", "sh", "-c", "exit 4"}, ignore_children).exit_status(), 4);
  const Finished status =
      run({COWTOP, "--", "grep", "SigIgn", "/proc/self/status"}, ignore_children);
  EXPECT_THAT(status.out,
              StartsWith(run({"grep", "SigIgn", "/proc/self/status"}, ignore_children).out));
}

TEST(CowtopCommand, TheCommandKeepsItsSignalsAndDescriptors) {
  const Finished mask = run({COWTOP, "--", "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"});
  const Finished plain = run({"grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"});
  EXPECT_THAT(mask.out, StartsWith(plain.out));
  const Finished files = run({COWTOP, "--", "ls", "/proc/self/fd"});
  EXPECT_THAT(files.out, StartsWith(run({"ls", "/proc/self/fd"}).out + "cowtop:"));
}

}  // namespace
}  // namespace cowshed::cowtop
