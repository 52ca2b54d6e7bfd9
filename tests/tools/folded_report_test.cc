#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/folded_report.h>
#include <cowshed/tools/cowtop/speedscope_report.h>

namespace cowshed::cowtop {
namespace {

TEST(FoldedReport, IsOfAllThatWasCopied) {
  EXPECT_EQ(folded_report(full_measurement()),
            "server;[not sampled] 3\n"
            "worker;main;fill() 640\n");
}

TEST(FoldedReport, OneLineForAStackOfManyProcesses) {
  auto measurement = full_measurement();
  measurement.processes.push_back(measurement.processes[1]);
  measurement.processes.push_back(measurement.processes[1]);
  measurement.processes.back().comm = "a;b\nc";
  EXPECT_EQ(folded_report(measurement),
            "a:b?c;main;fill() 640\n"
            "server;[not sampled] 3\n"
            "worker;main;fill() 1280\n");
}

TEST(FoldedReport, OfNothing) { EXPECT_EQ(folded_report({}), ""); }

TEST(SpeedscopeReport, HasTheSameStacks) {
  const auto report = nlohmann::json::parse(speedscope_report(full_measurement()));
  const auto& profile = report["profiles"][0];
  EXPECT_EQ(profile["type"], "sampled");
  EXPECT_EQ(profile["endValue"], 643);
  EXPECT_EQ(profile["weights"], nlohmann::json::parse("[3, 640]"));
  EXPECT_EQ(profile["samples"], nlohmann::json::parse("[[0, 1], [2, 3, 4]]"));
  EXPECT_EQ(report["shared"]["frames"][4]["name"], "fill()");
}

}  // namespace
}  // namespace cowshed::cowtop
