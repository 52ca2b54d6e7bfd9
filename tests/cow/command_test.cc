#include <cowshed/cow/command.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

TEST(Command, RunsOnlyWhenReleasedAndGivesItsStatus) {
  auto command = Command::fork({"sh", "-c", "exit 7"});
  ASSERT_TRUE(command) << command.error().message;
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(command->pid()), &info, WEXITED | WNOHANG), 0);
  EXPECT_EQ(info.si_pid, 0);
  ASSERT_TRUE(command->release());
  const auto status = command->wait();
  ASSERT_TRUE(status);
  EXPECT_EQ(WEXITSTATUS(*status), 7);
}

TEST(Command, ExecFailuresCarryErrno) {
  auto missing = Command::fork({"/no/such/command"});
  ASSERT_TRUE(missing);
  const auto not_found = missing->release();
  ASSERT_FALSE(not_found);
  EXPECT_EQ(not_found.error().system_errno, ENOENT);
  EXPECT_TRUE(missing->wait());

  auto folder = Command::fork({"/etc"});
  ASSERT_TRUE(folder);
  const auto not_executable = folder->release();
  ASSERT_FALSE(not_executable);
  EXPECT_EQ(not_executable.error().system_errno, EACCES);
  EXPECT_TRUE(folder->wait());
}

TEST(Command, KilledBeforeItsReleaseIsAnError) {
  auto command = Command::fork({"true"});
  ASSERT_TRUE(command);
  ::kill(command->pid(), SIGKILL);
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(command->pid()), &info, WEXITED | WNOWAIT);
  EXPECT_FALSE(command->release());
  EXPECT_TRUE(command->wait());
}

TEST(Command, NeverReleasedLeavesNoProcess) {
  pid_t pid = 0;
  {
    const auto command = Command::fork({"true"});
    ASSERT_TRUE(command);
    pid = command->pid();
  }
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST(Command, NothingToRun) {
  const auto command = Command::fork({});
  ASSERT_FALSE(command);
  EXPECT_EQ(command.error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace cowshed::cow
