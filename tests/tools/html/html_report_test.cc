#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/html/copy_tree.h>
#include <cowshed/tools/cowtop/html/curves.h>
#include <cowshed/tools/cowtop/html/html_report.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/text_report.h>

namespace cowshed::cowtop {
namespace {

std::uint64_t pages_of(const CopyTree& tree) {
  return std::accumulate(
      tree.nodes().begin(), tree.nodes().end(), std::uint64_t{0},
      [](std::uint64_t sum, const CopyTree::Node& node) { return sum + node.pages; });
}

// "a;b 3" for each node that copied.
std::vector<std::string> stacks_of(const CopyTree& tree) {
  std::vector<std::string> result;
  for (std::uint32_t i = 0; i < tree.nodes().size(); ++i) {
    if (tree.nodes()[i].pages == 0) continue;
    std::string text;
    for (std::uint32_t node = i; node != 0; node = tree.nodes()[node].parent)
      text.insert(0, ";" + tree.names()[tree.nodes()[node].name]);
    result.push_back(text + " " + std::to_string(tree.nodes()[i].pages));
  }
  return result;
}

TEST(HtmlReport, ThePagesScriptsKnowTheSizeOfAPage) {
  const std::string constant = "const PAGE_BYTES = " + std::to_string(cow::kPageSize) + ";";
  EXPECT_THAT(html_page("{}"), HasSubstr(constant));
}

TEST(CopyTree, AddsUpWhatBeginsAlike) {
  CopyTree tree;
  const auto inner = tree.add("main;run;copy", 3);
  tree.add("main;run", 2);
  tree.add("main;exit", 1);
  EXPECT_EQ(tree.add("main;run;copy", 4), inner);
  EXPECT_THAT(stacks_of(tree), ElementsAre(";main;run 2", ";main;run;copy 7", ";main;exit 1"));
  EXPECT_EQ(tree.nodes().size(), 5U);
}

TEST(CopyTree, PrunesTheSmallestAndKeepsTheSum) {
  CopyTree tree;
  tree.add("main;large;inner", 100);
  tree.add("main;large", 10);
  const auto small = tree.add("main;small;deep;deeper", 2);
  const auto tiny = tree.add("main;tiny", 1);
  const auto became = tree.prune(4);
  EXPECT_THAT(stacks_of(tree),
              ElementsAre(";main;large 10", ";main;large;inner 100", ";main;[smaller] 3"));
  EXPECT_EQ(became[small], became[tiny]);
}

TEST(CopyTree, PrunesNothingThatFits) {
  CopyTree tree;
  tree.add("a;b", 1);
  tree.add("a;c", 1);
  const auto before = stacks_of(tree);
  tree.prune(4);
  EXPECT_EQ(stacks_of(tree), before);
}

TEST(CopyTree, StaysSmallOfManyStacks) {
  CopyTree tree;
  for (int i = 0; i < 20'000; ++i)
    tree.add("main;f" + std::to_string(i % 97) + ";g" + std::to_string(i), 1);
  constexpr std::size_t kMost = 1000;
  tree.prune(kMost);
  EXPECT_LE(tree.nodes().size(), 2 * kMost);
  EXPECT_EQ(pages_of(tree), 20'000U);
}

Json document(double at_s, std::uint64_t pages) {
  const Json process = {{"copied_anon_pages", pages}, {"copied_file_pages", 1U}};
  Json result = {{"schema", "cowshed.run/2"}, {"duration_s", at_s}};
  result["processes"] = Json::array({process});
  return result;
}

cow::Measurement measured(double at_s, std::uint64_t pages) {
  cow::Measurement measurement = measurement_with({copier(0, "", pages)});
  measurement.duration_s = at_s;
  return measurement;
}

TEST(Curves, FollowEachProcess) {
  Curves curves;
  curves.add(document(1, 10));
  Json two = document(2, 20);
  two["processes"].push_back({{"pid", 2}});
  curves.add(two);
  cow::Measurement end = measured(3, 20);
  end.processes.emplace_back().pid = 2;
  const Json json = curves.json(end, {0, 1});
  EXPECT_EQ(json["at_s"], Json::array({1.0, 2.0, 3.0}));
  EXPECT_EQ(json["total"], Json::array({10, 20, 20}));
  EXPECT_EQ(json["of"][0]["copied"], Json::array({10, 20})) << "then it did not change";
  EXPECT_EQ(json["of"][1]["begin"], 1);
  EXPECT_EQ(json["of"][1]["copied"], Json::array({nullptr}));
}

// It ended between the two moments, and samples then told that 20 of its pages were copied at its
// end.
TEST(Curves, NeverFall) {
  Curves curves;
  curves.add(document(1, 10));
  curves.add(document(2, 50));
  cow::Measurement end = measured(3, 40);
  end.processes[0].patterns = {{"program exit", 0.5, 8, ""}, {"reference count", 0.5, 8, ""}};
  const Json json = curves.json(end, {0});
  EXPECT_EQ(json["total"], Json::array({10, 20, 20}));
  EXPECT_EQ(json["of"][0]["copied"], Json::array({10, 20}));
}

TEST(HtmlReport, WhyIsOfCopiedWhichLeavesOutTheEnd) {
  cow::Measurement measurement = measured(3, 4000);
  measurement.processes[0].patterns = {
      {"program exit", 0.75, 8, ""}, {"reference count", 0.2, 8, ""}, {"stack", 0.05, 1, ""}};
  EXPECT_THAT(
      html_report(measurement, {}, {}, ""),
      HasSubstr(R"("copied_causes":[[{"name":"reference count","bytes":3276800,"of_all":0.8},)"
                R"({"name":"stack","bytes":819200,"of_all":0.2}]])"));
}

TEST(Curves, OfALongRecordingAreThinned) {
  Curves curves;
  constexpr int kIntervals = 10'000;
  for (int i = 1; i <= kIntervals; ++i) curves.add(document(i, static_cast<std::uint64_t>(i)));
  const Json json = curves.json(measured(kIntervals, kIntervals), {0});
  const auto at = json["at_s"].get<std::vector<double>>();
  EXPECT_GE(at.size(), 150U);
  EXPECT_LE(at.size(), 302U);
  EXPECT_EQ(at.front(), 1);
  EXPECT_EQ(at.back(), kIntervals);
  for (std::size_t i = 2; i + 1 < at.size(); ++i)
    EXPECT_EQ(at[i] - at[i - 1], at[1] - at[0]) << "evenly";
  EXPECT_EQ(json["total"].back(), kIntervals);
}

TEST(Curves, LeaveOutAnIntervalThatIsDamaged) {
  Curves curves;
  curves.add(document(1, 10));
  Json damaged = document(2, 20);
  damaged["processes"][0]["copied_anon_pages"] = "many";
  curves.add(damaged);
  curves.add(Json(7));
  EXPECT_EQ(curves.json(measured(3, 20), {})["at_s"], Json::array({1.0, 3.0}));
}

std::string page_of(const cow::Measurement& measurement) {
  return html_report(measurement, {}, {}, "");
}

TEST(HtmlReport, IsOnePageThatFetchesNothing) {
  const std::string page = page_of(full_measurement());
  EXPECT_THAT(page, StartsWith("<!DOCTYPE html>"));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* each : {" src=", "<link", "url(", "@import", "http://", "https://"})
    EXPECT_THAT(page, Not(HasSubstr(each)));
}

TEST(HtmlReport, BeginsWithTheReport) {
  cow::Measurement measurement =
      measurement_with({root_copier(1, "server", 0), copier(2, "worker", 1000)});
  measurement.processes[1].shared_at_fork_bytes = 8 << 20;
  measurement.processes[1].patterns = {{"reference count", 1, 9, "inc [rdi]"}};
  const std::string text = text_report(measurement);
  EXPECT_THAT(text, AllOf(StartsWith("worker copied"), HasSubstr("TRY    hold read-only data")));
  EXPECT_THAT(page_of(measurement), HasSubstr(line_of(text)));
}

TEST(HtmlReport, NamesCannotEndTheData) {
  cow::Measurement measurement = full_measurement();
  measurement.processes[0].comm = "</script><!--<script>";
  measurement.processes[1].sampled->stacks[0].folded = "</SCRIPT >";
  const std::string page = page_of(measurement);
  EXPECT_THAT(page, Not(HasSubstr("</script><!--")));
  EXPECT_THAT(page, Not(HasSubstr("</SCRIPT")));
  EXPECT_THAT(page, HasSubstr("\\u003c/script>\\u003c!--\\u003cscript>"));
}

TEST(HtmlReport, HasNoByteThatIsNoUtf8) {
  cow::Measurement measurement = full_measurement();
  measurement.processes[0].comm = "\xff\xfe";
  EXPECT_THAT(page_of(measurement), Not(HasSubstr("\xff")));
}

TEST(HtmlReport, OfAComparisonNamesBothSides) {
  const std::string page = html_comparison(compare(full_measurement(), full_measurement()),
                                           {"one.cowtop", "<two>.cowtop"});
  EXPECT_THAT(page, HasSubstr(R"("before": "one.cowtop")"));
  EXPECT_THAT(page, HasSubstr(R"("after": "\u003ctwo>.cowtop")"));
}

}  // namespace
}  // namespace cowshed::cowtop
