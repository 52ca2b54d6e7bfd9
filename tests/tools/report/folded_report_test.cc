#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/report/folded_report.h>

namespace cowshed::cowtop {
namespace {

TEST(FoldedReport, IsOfAllThatWasCopiedAndOfNewMemory) {
  EXPECT_EQ(folded_report(full_measurement()),
            "server;[not sampled] 3\n"
            "worker;main;fill() 640\n"
            "[new memory];run;total 576\n");
}

TEST(FoldedReport, OneLineForAStackOfManyProcesses) {
  auto measurement = full_measurement();
  measurement.processes.push_back(measurement.processes[1]);
  measurement.processes.push_back(measurement.processes[1]);
  measurement.processes.back().comm = "a;b\nc";
  EXPECT_EQ(folded_report(measurement),
            "a:b?c;main;fill() 640\n"
            "server;[not sampled] 3\n"
            "worker;main;fill() 1280\n"
            "[new memory];run;total 576\n");
}

TEST(FoldedReport, OfNothing) { EXPECT_EQ(folded_report({}), ""); }

}  // namespace
}  // namespace cowshed::cowtop
