#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <cowshed/tests/support/public_copy.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/tools/recordings.h>

// cowtop as root, its command as somebody else.
namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::PublicCopy;
using test::run;
using ::testing::HasSubstr;

class CowtopUser : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "takes root, to become somebody else";
    ASSERT_EQ(::chmod((folder_ / "").c_str(), 01777), 0);
  }
  TestFolder folder_;
  std::string path_ = folder_ / "report";
};

uid_t owner_of(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return status.st_uid;
}

TEST_F(CowtopUser, TheCommandIsTheUsersAndTheReportIsRoots) {
  const Finished finished = run({COWTOP, "-u", "nobody", "-o", path_, "--", "sh", "-c",
                                 "id -u; id -g; id -G; echo $HOME $USER $LOGNAME $KEPT"},
                                [] { ::setenv("KEPT", "kept", 1); });
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_EQ(finished.out, "65534\n65534\n65534\n/nonexistent nobody nobody kept\n");
  EXPECT_EQ(owner_of(path_), 0U);
}

TEST_F(CowtopUser, ByNumber) {
  const Finished finished =
      run({COWTOP, "-u", "65534", "-o", path_, "--", "sh", "-c", "id -u; id -g; echo $USER"});
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_EQ(finished.out, "65534\n65534\nnobody\n");
}

TEST_F(CowtopUser, ItIsMeasuredAsAnyOther) {
  const PublicCopy subject(COPY_SUBJECT);
  const Finished finished = run({COWTOP, "--json", "-o", path_, "-u", "nobody", "--",
                                 subject.path(), "1000", "1", "500", "100"});
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  const auto report = nlohmann::json::parse(contents_of(path_));
  ASSERT_EQ(report["processes"].size(), 2U);
  EXPECT_EQ(report["backend"], "tracepoint");
  EXPECT_GE(report["processes"][1]["copied_pages"], 500);
}

TEST_F(CowtopUser, EverySubcommandThatRunsOneHasIt) {
  const std::string made = folder_ / "made";
  EXPECT_EQ(run({COWTOP, "record", "-o", path_, "-u", "nobody", "--", "touch", made}).exit_status(),
            0);
  EXPECT_EQ(owner_of(path_), 0U);
  EXPECT_EQ(owner_of(made), 65534U);
  EXPECT_EQ(run({COWTOP, "check", "--tree", "--max-copied", "1GiB", "-u", "nobody", "--", "sh",
                 "-c", "true & wait"})
                .exit_status(),
            0);
}

TEST_F(CowtopUser, WhatCannotBeIsAnErrorBeforeTheCommandRuns) {
  const auto refused = [](const std::vector<std::string>& words) {
    const Finished finished = run(words);
    EXPECT_EQ(finished.exit_status(), 125);
    EXPECT_EQ(finished.out, "");
    return finished.err;
  };
  EXPECT_EQ(refused({COWTOP, "-u", "no such", "--", "echo", "ran"}),
            "cowtop: -u: 'no such': there is no such user (see cowtop --help)\n");
  EXPECT_THAT(refused({COWTOP, "-u", "nobody", "-p", "1"}), HasSubstr("runs already"));
  const PublicCopy cowtop(COWTOP);
  EXPECT_THAT(refused({"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                       cowtop.path(), "-u", "root", "--", "echo", "ran"}),
              HasSubstr("echo cannot be run as root: Operation not permitted; that takes root"));
  EXPECT_EQ(run({COWTOP, "-u", "nobody", "--", "/no/such"}).exit_status(), 127);
}

}  // namespace
}  // namespace cowshed::cowtop
