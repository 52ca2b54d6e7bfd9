#include <regex>

#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/commands/top_options.h>
#include <cowshed/tools/cowtop/report/table_report.h>

namespace cowshed::cowtop {
namespace {

using test::run;

ParsedArguments parse(std::vector<std::string> words) {
  return parse_arguments(std::move(words)).value();
}

TEST(CowtopOptions, TheCommandKeepsItsOwnOptions) {
  const auto parsed = parse({"--json", "--", "make", "-j4", "--json", "--", "x"});
  ASSERT_FALSE(parsed.exit_status);
  EXPECT_TRUE(parsed.options.json);
  EXPECT_THAT(parsed.options.measure.command, ElementsAre("make", "-j4", "--json", "--", "x"));
}

TEST(CowtopOptions, ACommandNeedsItsSeparator) {
  const auto parsed = parse_arguments({"-o", "f", "make", "-j4"});
  ASSERT_FALSE(parsed);
  EXPECT_THAT(parsed.error().message, HasSubstr("cowtop -- make -j4"));
}

TEST(CowtopOptions, WhichProcesses) {
  EXPECT_FALSE(parse({"--", "true"}).options.measure.selection);
  const auto selected = [](std::vector<std::string> words) {
    return parse(std::move(words)).options.measure.selection.value_or(Selection{}).text();
  };
  EXPECT_EQ(parse({}).options.measure.selection->by, Selection::By::everything);
  EXPECT_EQ(selected({}), "every process");
  EXPECT_EQ(selected({"-p", "7"}), "-p 7");
  EXPECT_EQ(selected({"-p", "7,3", "--pid", "5", "-p7"}), "-p 3,5,7");
  EXPECT_EQ(selected({"--comm", "a,b"}), "--comm a,b");
  EXPECT_EQ(selected({"--cgroup=/a/b"}), "--cgroup /a/b");
}

TEST(CowtopOptions, CodeIsSampledWhereTheBackendCan) {
  const auto period = [](std::vector<std::string> words) {
    return parse(std::move(words)).options.measure.sampling.period;
  };
  EXPECT_EQ(period({"--", "true"}), 64U);
  EXPECT_EQ(period({"-c", "7", "--", "true"}), 7U);
  EXPECT_EQ(period({"--no-sites", "--", "true"}), 0U);
  EXPECT_EQ(period({"--backend", "pagemap", "--", "true"}), 0U);
}

TEST(CowtopOptions, AllPagesAreComparedWhereThatIsAskedFor) {
  EXPECT_FALSE(parse({"--", "true"}).options.measure.compares_all);
  EXPECT_TRUE(parse({"--alike", "--", "true"}).options.measure.compares_all);
}

TEST(CowtopOptions, OfACommandTheViewIsLiveWhenAskedFor) {
  EXPECT_FALSE(parse({"--", "true"}).options.live);
  EXPECT_TRUE(parse({"--live", "--", "true"}).options.live);
  EXPECT_TRUE(parse({"-p", "7"}).options.live);
  EXPECT_FALSE(parse({"-p", "7", "--json"}).options.live);
}

TEST(CowtopOptions, EachOfSeveralProcessesIsNamed) {
  for (const std::string pids : {"1,", ",1", "1,,2", ",", "1 2", "1,x", "0", "99999999999"}) {
    const auto parsed = parse_arguments({"-p", pids});
    ASSERT_FALSE(parsed) << pids;
    EXPECT_THAT(parsed.error().message, HasSubstr(" process ID")) << pids;
  }
}

TEST(CowtopOptions, HelpSaysWhatEachColumnIs) {
  const std::string help = run({COWTOP, "--help"}).out;
  const std::regex unit(" MiB$");
  cow::Measurement measurement;
  measurement.processes.emplace_back();
  std::istringstream table(table_report(measurement));
  std::string headings;
  while (std::getline(table, headings) && headings.find("COMMAND") == std::string::npos) continue;
  std::size_t columns = 0;
  const std::regex heading("[A-Z]+( [A-Za-z%]+)*");
  for (std::sregex_iterator found(headings.begin(), headings.end(), heading), end; found != end;
       ++found, ++columns) {
    if (found->str() == "PID" || found->str() == "COMMAND") continue;
    const std::string word = std::regex_replace(found->str(), unit, "");
    EXPECT_THAT(help, HasSubstr("\n  " + word + "  ")) << headings;
  }
  EXPECT_GE(columns, 19);
}

}  // namespace
}  // namespace cowshed::cowtop
