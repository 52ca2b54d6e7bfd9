// Programs with and without a Runtime.  The build gives the paths of two more.

#include <cowshed/share/map.h>
#include <cowshed/tests/support/folder.h>

#include "every_method.h"
#include "other_program.h"

namespace cowshed {
namespace other {

long scale(long number) { return number * 2; }
long only_here(long number) { return number; }
// Another definition than the other program's.
Sized grow(Sized sized) { return sized; }

}  // namespace other

namespace {

TEST(Runtime, AnotherProgramRunsItsFunctionOfThatName) {
  EXPECT_EQ(end_of(start<other::scale>({.method = Start::spawn}, 4)).value, 8);
  const WorkersOptions there = {.method = Start::spawn, .program = OTHER_PROGRAM};
  EXPECT_EQ(end_of(start<other::scale>(there, 4)).value, 40);
}

TEST(Runtime, AFunctionThatTheOtherProgramHasNot) {
  const WorkersOptions there = {.method = Start::spawn, .program = OTHER_PROGRAM};
  EXPECT_THAT(end_of(start<other::only_here>(there, 4)).error,
              HasSubstr("no worker function cowshed::other::only_here here; put "
                        "COWSHED_WORKER()"));
  EXPECT_THAT(end_of(start<other::grow>(there, other::Sized{})).error,
              HasSubstr("have other sizes here"));
}

TEST(Runtime, AProgramWithoutOneIsFoundOut) {
  const auto ended =
      end_of(start<other::scale>({.method = Start::spawn, .program = "/bin/true"}, 4));
  EXPECT_FALSE(ended.value);
  EXPECT_THAT(ended.error, HasSubstr("exited with 0 before it came to its function"));
  const WorkersOptions hangs = {
      .method = Start::spawn, .program = NO_RUNTIME, .start_timeout = 100ms};
  const auto killed = end_of(start<other::scale>(hangs, 4));
  EXPECT_EQ(killed.signal, SIGKILL);
  EXPECT_THAT(killed.error, HasSubstr("was killed after 100 ms (WorkersOptions::start_timeout)"));
  EXPECT_THAT(killed.error, HasSubstr("cowshed::Runtime"));
  const auto mapped = map<other::scale>({.workers = hangs}, std::vector<long>{4});
  EXPECT_THAT(mapped, Fails(ErrorCode::worker_failed, "was killed after 100 ms"));
}

TEST(Runtime, AProgramWithMoreRightsThanItsCallerIsNoWorkerOfIt) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, for a set-user-ID program";
  const test::Folder folder;
  const std::string program = folder.path() / "program";
  std::filesystem::copy_file(OTHER_PROGRAM, program);
  ASSERT_EQ(chmod(folder.path().c_str(), 0755) + chmod(program.c_str(), 04755), 0);
  const auto found = run_in_child([&] {
    test::become_nobody();
    return end_of(start<other::scale>({.method = Start::spawn, .program = program}, 4)).error;
  });
  EXPECT_THAT(found.said, HasSubstr("has other rights than its starter"));
}

TEST(Runtime, WithoutOneAProgramDoesNotSpawn) {
  const std::string quoted = std::string("'") + NO_RUNTIME + "'";
  EXPECT_EQ(WEXITSTATUS(std::system(quoted.c_str())), 0);
}

TEST(Runtime, AProcessWithoutAnEnvironmentSpawns) {
  const auto child = run_in_child([] {
    clearenv();
    const auto ended = end_of(start<other::scale>({.method = Start::spawn}, 4));
    return std::to_string(ended.value.value_or(0)) + ended.error;
  });
  EXPECT_EQ(child.said, "8");
}

TEST(Runtime, AProgramThatIsNotThereIsAnErrorOfStart) {
  const auto workers =
      start<other::scale>({.method = Start::spawn, .program = "/no/such/program"}, 4);
  EXPECT_THAT(workers, FailsBy(ENOENT, EndsWith("/no/such/program: No such file or directory")));
}

}  // namespace
}  // namespace cowshed
