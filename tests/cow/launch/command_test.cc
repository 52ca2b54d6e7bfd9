#include <cowshed/cow/command.h>
#include <cowshed/tests/support/failure.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

TEST(Command, RunsOnlyWhenReleasedAndGivesItsStatus) {
  auto command = Command::fork({"sh", "-c", "exit 7"}).value();
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(command.pid()), &info, WEXITED | WNOHANG), 0);
  EXPECT_EQ(info.si_pid, 0);
  ASSERT_TRUE(command.release());
  EXPECT_EQ(WEXITSTATUS(command.wait().value()), 7);
}

TEST(Command, ExecFailuresCarryErrno) {
  for (const auto& [word, number] : {std::pair("/no/such/command", ENOENT), {"/etc", EACCES}}) {
    auto command = Command::fork({word}).value();
    EXPECT_EQ(failure_of(command.release()).system_errno, number) << word;
    EXPECT_TRUE(command.wait());
  }
}

TEST(Command, KilledBeforeItsReleaseIsAnError) {
  auto command = Command::fork({"true"}).value();
  ::kill(command.pid(), SIGKILL);
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(command.pid()), &info, WEXITED | WNOWAIT);
  EXPECT_FALSE(command.release());
  EXPECT_TRUE(command.wait());
}

TEST(Command, NeverReleasedLeavesNoProcess) {
  const pid_t pid = Command::fork({"true"}).value().pid();
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST(Command, NothingToRun) {
  EXPECT_EQ(failure_of(Command::fork({})).code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace cowshed::cow
