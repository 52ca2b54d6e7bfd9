#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cowshed/tests/programs/real_program.h>

namespace cowshed::test {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class PythonFork : public RealProgram {
 protected:
  PythonFork() : RealProgram({kPython}) {}
};

// A list of 300,000 strings, and a child.
std::vector<std::string> python(const std::string& before_fork, const std::string& in_child) {
  return {kPython, "-c",
          "import gc, os\n"
          "items = [str(i) + 'x' * 10 for i in range(300000)]\n" +
              before_fork +
              "\npid = os.fork()\n"
              "if pid == 0:\n" +
              in_child +
              "    os._exit(0)\n"
              "os.waitpid(pid, 0)\n"};
}

constexpr const char* kReadAll = "    for item in items: len(item)\n";

TEST_F(PythonFork, CopiesToCountReferencesAndThenToCollectGarbage) {
  const std::string collect = "    gc.collect()\n";
  // All but the counts: what else a child does, the collector's own lists among it.
  const MeasuredRun idle = measure(python("gc.freeze()", collect));
  const MeasuredRun plain = measure(python("", kReadAll + collect));
  // Freezing takes from the collector what there is to mark, and nothing from the counts.
  const MeasuredRun frozen = measure(python("gc.freeze()", kReadAll + collect));
  const Json& ours = plain.process(plain.child());
  ASSERT_TRUE(ours.is_object() && frozen.child() != 0 && idle.child() != 0);
  show("python", plain, plain.child());
  show("python, gc.freeze()", frozen, frozen.child());

  const double for_nothing = idle.copies(idle.child());
  const double for_counts = frozen.copies(frozen.child());
  const double for_all = plain.copies(plain.child());
  const double unknown = for_nothing / for_all;
  EXPECT_GT(for_counts, 10 * for_nothing);
  EXPECT_GT(for_all, for_counts);
  expect_share(ours, "reference count", (for_counts - for_nothing) / for_all, for_counts / for_all);
  expect_share(ours, "garbage collector", (for_all - for_counts) / for_all - unknown,
               (for_all - for_counts) / for_all + unknown);
  EXPECT_GT(share(ours, "garbage collector"), 0);
  EXPECT_EQ(patterns(ours).at(0), "reference count");
  EXPECT_THAT(ours.at("patterns").at(0).at("evidence"), HasSubstr("add qword ptr ["));
  EXPECT_EQ(patterns(ours).at(1), "garbage collector");
  const Json& without = frozen.process(frozen.child());
  expect_share(without, "reference count", 1 - for_nothing / for_counts, 1);
  expect_share(without, "garbage collector", 0, for_nothing / for_counts);

  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"anonymous"});
  // What iterates over the list, and the collector: called from the interpreter's loop, both.
  EXPECT_THAT(places(ours, 2), Each(StartsWith("_PyEval_EvalFrameDefault (python3")));
  for (const Json& process : {ours, without}) {
    expect_copies(process.at("sites").at(0), process, for_counts - for_nothing, for_counts);
  }
}

}  // namespace
}  // namespace cowshed::test
