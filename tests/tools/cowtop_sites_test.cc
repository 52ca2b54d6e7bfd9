#include <nlohmann/json.hpp>

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cowtop {
namespace {

using Json = nlohmann::json;

class CowtopSites : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto supported = probe_support(); !supported)
      GTEST_SKIP() << supported.error().message;
  }

  // cowtop's report of a child that copies PAGES pages.  A process that nobody saw alive has no
  // names: on a busy machine a longer life helps.
  static std::string report(const std::vector<std::string>& options) {
    std::string text;
    for (const char* pages : {"20000", "100000", "200000"}) {
      std::vector<std::string> arguments = {COWTOP, "--backend", "tracepoint"};
      arguments.insert(arguments.end(), options.begin(), options.end());
      arguments.insert(arguments.end(), {"--", SITE_SUBJECT, "shares", pages});
      const auto finished = test::run(arguments);
      EXPECT_EQ(finished.exit_status(), 0) << finished.err;
      text = finished.out;
      if (text.find("copy_often") != std::string::npos) break;
    }
    return text;
  }
};

TEST_F(CowtopSites, InTheTableMostFirst) {
  const std::string text = report({"--sites"});
  EXPECT_THAT(text, HasSubstr("1 in 64 copies; 0 samples lost\n"));
  const auto often = text.find("site_subject::copy_often(char volatile*) site_subject.cc:");
  const auto seldom = text.find("site_subject::copy_seldom(char volatile*) site_subject.cc:");
  EXPECT_NE(often, std::string::npos) << text;
  EXPECT_LT(often, seldom);
  EXPECT_THAT(text, HasSubstr("site_subject::store_inlined(char volatile*) site_subject.cc:"));
  EXPECT_THAT(text, HasSubstr("mapping 'anonymous': ~"));
  EXPECT_THAT(report({}), Not(HasSubstr("estimated"))) << "only when asked for";
}

TEST_F(CowtopSites, InTheJson) {
  const Json run = Json::parse(report({"--sites", "-c", "16", "--json"}));
  EXPECT_EQ(run.at("sampling").at("period"), 16);
  EXPECT_EQ(run.at("sampling").at("emitted"), run.at("sampling").at("received").get<int>() +
                                                  run.at("sampling").at("lost").get<int>());
  for (const Json& object : {run, run.at("processes").at(1)}) {
    const Json& site = object.at("sites").at(0);
    EXPECT_THAT(site.at("frames").at(0).at("function"), HasSubstr("copy_often"));
    EXPECT_NEAR(site.at("estimated_copies").get<double>(), site.at("samples").get<double>() * 16,
                site.at("samples").get<double>());
    EXPECT_EQ(object.at("mappings").at(0).at("name"), "anonymous");
  }
  EXPECT_FALSE(run.at("processes").at(1).at("ranges").empty());
}

// The kernel's buffer holds what is copied while cowtop does not run.
TEST_F(CowtopSites, NoneIsLostWhileCowtopWaitsForACpu) {
  const char* script = "kill -STOP $PPID; \"$0\" shares 20000; kill -CONT $PPID";
  const auto finished = test::run({COWTOP, "--backend", "tracepoint", "--sites", "-c", "16",
                                   "--json", "--", "sh", "-c", script, SITE_SUBJECT});
  ASSERT_EQ(finished.exit_status(), 0) << finished.err;
  const Json run = Json::parse(finished.out);
  EXPECT_GT(run.at("sampling").at("received"), 1200);
  EXPECT_EQ(run.at("sampling").at("lost"), 0);
}

}  // namespace
}  // namespace cowshed::cowtop
