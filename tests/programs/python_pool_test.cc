#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iostream>
#include <sys/stat.h>

#include <cowshed/tests/programs/real_program.h>

namespace cowshed::test {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

// So often that the mappings with some 40 copies stand out from those with one.
constexpr const char* kOften = "4";

class PythonPool : public RealProgram {
 protected:
  PythonPool() : RealProgram({kPython}) {}

  // Waits for the worker to wait for that.
  void go_on() const { std::ofstream(file("go_on")) << ""; }
};

TEST_F(PythonPool, CopiesToCountReferences) {
  ASSERT_EQ(::mkfifo(file("go_on").c_str(), 0600), 0);
  Subprocess pool(cowtop({kPython, "-c",
                          "import multiprocessing, os, sys\n"
                          "items = [str(i) + 'x' * 10 for i in range(300000)]\n"
                          "def go_on(): open(sys.argv[1]).read()\n"
                          "def work(_):\n"
                          "    print('ready', os.getpid(), flush=True)\n"
                          "    for name, which in ('nothing', []), ('all', items):\n"
                          "        go_on()\n"
                          "        sum(len(item) for item in which)\n"
                          "        print('has read', name, flush=True)\n"
                          "    go_on()\n"
                          "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
                          "    pool.map(work, [0])\n",
                          file("go_on")},
                         kOften));
  const pid_t worker = pid_of(pool.read_until("\n").out);
  ASSERT_GT(worker, 0);
  const auto copies = [worker] { return static_cast<double>(wpcopy_count(worker).value_or(0)); };
  const double first = copies();
  go_on();
  pool.read_until("has read nothing");
  const double for_nothing = copies() - first;
  go_on();
  pool.read_until("has read all");
  const double for_reading = copies() - first - for_nothing;
  EXPECT_GT(for_reading, 10 * for_nothing);
  go_on();
  const MeasuredRun run = finish(pool);
  const Json& ours = run.process(worker);
  ASSERT_TRUE(ours.is_object());
  show("multiprocessing pool", run, worker);
  std::cout << "  the list: " << for_reading << " by taskstats\n";
  expect_share(ours, "reference count", (for_reading - for_nothing) / run.copies(worker), 1);
  EXPECT_EQ(patterns(ours).at(0), "reference count");
  EXPECT_EQ(mappings(ours, 1), std::vector<std::string>{"anonymous"});
  EXPECT_THAT(mappings(ours, 3),
              UnorderedElementsAre("anonymous", "[heap]", EndsWith("/python3.11")));
  // All but the first are of a few copies, and not the same from run to run.
  EXPECT_THAT(places(ours, 1), ElementsAre(StartsWith("_PyEval_EvalFrameDefault (python3")));
  expect_copies(ours.at("sites").at(0), ours, for_reading - for_nothing, for_reading);
}

}  // namespace
}  // namespace cowshed::test
