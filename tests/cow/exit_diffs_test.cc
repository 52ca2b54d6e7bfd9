#include <gtest/gtest.h>
#include <string>
#include <unistd.h>

#include <cowshed/cow/exit_diffs.h>
#include <cowshed/tests/cow/as_nobody.h>
#include <cowshed/tests/cow/paused_child.h>

namespace cowshed::cow {
namespace {

TEST(ExitDiffs, OfAProcessOfSomebodyElseNothingIsCompared) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become nobody";
  const test::PausedChild roots([] {});
  const std::string refusal = test::as_nobody([&roots] {
    const auto diffs = ExitDiffs::start(roots.pid(), ExitDiffs::Root::running);
    return diffs ? (*diffs)->refusal() : diffs.error().message;
  });
  EXPECT_EQ(refusal, "PID " + std::to_string(roots.pid()) +
                         ": not permitted to trace it; it is not compared");
}

}  // namespace
}  // namespace cowshed::cow
