#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <signal.h>
#include <unistd.h>

#include <cowshed/tests/support/public_copy.h>
#include <cowshed/tests/support/subprocess.h>

namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::run;
using test::Subprocess;
using ::testing::HasSubstr;

TEST(CowtopAttach, UntilCtrlC) {
  Subprocess subject({COPY_SUBJECT, "100", "2", "50", "60000"});
  subject.read_until("\n");
  Subprocess cowtop({COWTOP, "--json", "-p", std::to_string(subject.pid())});
  ASSERT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 3 processes"));
  ::kill(cowtop.pid(), SIGINT);
  const Finished finished = cowtop.finish();
  EXPECT_EQ(finished.exit_status(), 0);
  const auto report = nlohmann::json::parse(finished.out);
  ASSERT_EQ(report["processes"].size(), 3U);
  EXPECT_EQ(report["processes"][0]["pid"], subject.pid());
  EXPECT_EQ(report["processes"][0]["role"], "root");
  EXPECT_EQ(report["processes"][0]["alive"], true);
  EXPECT_EQ(report["processes"][1]["role"], "child");
}

TEST(CowtopAttach, UntilTheTreeHasEnded) {
  Subprocess subject({COPY_SUBJECT, "100", "1", "50", "60000"});
  const pid_t child = std::stoi(subject.read_until("\n").out);
  Subprocess cowtop({COWTOP, "-p", std::to_string(subject.pid())});
  ASSERT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 2 processes"));
  ::kill(child, SIGTERM);
  EXPECT_EQ(subject.finish().exit_status(), 0);
  EXPECT_EQ(cowtop.finish().exit_status(), 0);
}

TEST(CowtopAttach, NoSuchProcess) {
  const Finished finished = run({COWTOP, "-p", "99999999"});
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_THAT(finished.err, HasSubstr("PID 99999999"));
}

TEST(CowtopAttach, SomebodyElsesProcess) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  const test::PublicCopy cowtop(COWTOP);
  const Finished finished =
      run({cowtop.path(), "-p", std::to_string(::getpid())}, [] { std::ignore = ::setuid(65534); });
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_THAT(finished.err, HasSubstr("belongs to somebody else"));
}

}  // namespace
}  // namespace cowshed::cowtop
