#include <csignal>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/cow/proc_files.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tools/cowtop/tree_end.h>

namespace cowshed::cowtop {
namespace {

cow::Measurement of_one_alive(pid_t pid) {
  cow::Measurement measurement;
  measurement.processes.emplace_back();
  measurement.processes[0].pid = pid;
  measurement.processes[0].alive = true;
  if (const auto stat = cow::ProcFiles().stat(pid)) {
    measurement.processes[0].start_ticks = stat->start_ticks;
  }
  return measurement;
}

TEST(TreeEnd, WhoIsAliveIsAskedToEnd) {
  test::Subprocess subject({"sleep", "60"});
  TreeEnd end;
  EXPECT_TRUE(end.go_on(of_one_alive(subject.pid()), 0));
  EXPECT_TRUE(end.has_begun());
  EXPECT_TRUE(end.has_asked(subject.pid()));
  const int status = subject.finish().status;
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(TreeEnd, WhoHasEndedSinceTheSampleWasNotEndedByUs) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  TreeEnd end;
  end.go_on(of_one_alive(pid), 0);
  EXPECT_FALSE(end.has_begun());
  EXPECT_FALSE(end.has_asked(pid));
}

TEST(TreeEnd, ALaterProcessWithThePidIsLeft) {
  test::Subprocess subject({"sleep", "60"});
  cow::Measurement measurement = of_one_alive(subject.pid());
  measurement.processes[0].start_ticks -= 1;
  TreeEnd end;
  end.go_on(measurement, 0);
  EXPECT_FALSE(end.has_begun());
  EXPECT_EQ(::waitpid(subject.pid(), nullptr, WNOHANG), 0);
}

TEST(TreeEnd, WhoIsKnownToHaveEndedIsLeft) {
  test::Subprocess subject({"sleep", "60"});
  TreeEnd end;
  EXPECT_FALSE(end.go_on(of_one_alive(subject.pid()), subject.pid()));
  EXPECT_FALSE(end.has_begun());
  EXPECT_EQ(::waitpid(subject.pid(), nullptr, WNOHANG), 0);
}

}  // namespace
}  // namespace cowshed::cowtop
