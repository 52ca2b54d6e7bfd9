#include <string>

#include <cowshed/cow/measurement.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/html/html_report.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/table_report.h>
#include <cowshed/tools/cowtop/serve/metrics_sums.h>
#include <cowshed/tools/cowtop/serve/metrics_text.h>
#include <cowshed/tools/cowtop/text/glossary.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;

// A line of count_list.h is enough, but for the schema's line, which this test prints.
TEST(Counts, AppearInEveryView) {
  cow::Measurement measurement = measurement_with({copier(11, "worker", 1)});
  measurement.lost_events = 7;
  std::uint64_t value = 1000;
  for (const cow::CountInfo& each : cow::kCounts) measurement.processes[0].*each.count = ++value;
  const Json json = run_json(measurement)["processes"][0];
  const std::string schema = contents_of(std::string(SCHEMAS) + "/cowshed.run-2.json");
  const std::string table = table_report(measurement);
  const std::string page = html_report(measurement, {}, {}, "");
  MetricsSums sums(10, [](pid_t) { return "/"; });
  sums.add(measurement, {});
  const std::string metrics = metrics_text(sums.metrics(), MetricsFormat::openmetrics);
  EXPECT_THAT(metrics, HasSubstr("cowshed_lost_events_total 7\n"));
  for (const cow::CountInfo& each : cow::kCounts) {
    const std::string number = std::to_string(*(measurement.processes[0].*each.count));
    EXPECT_EQ(json[each.name].dump(), number) << each.name;
    std::string meaning = each.meaning;
    for (auto at = meaning.find(".  "); at != meaning.npos; at = meaning.find(".  "))
      meaning.erase(at + 1, 1);
    EXPECT_THAT(schema, HasSubstr("\"" + std::string(each.name) + "\": {\"description\": \"" +
                                  meaning + "\", \"$ref\": \"#/$defs/maybe_count\"}"));
    EXPECT_THAT(page, HasSubstr("{\"name\":\"" + std::string(each.name) + "\",\"meaning\":"));
    if (const std::string column = each.column; !column.empty()) {
      EXPECT_THAT(table, HasSubstr(column));
      EXPECT_THAT(table, HasSubstr(number));
      EXPECT_NE(find_term(column), nullptr) << column;
    }
    if (const std::string kind = each.kind; !kind.empty())
      EXPECT_THAT(metrics, HasSubstr("kind=\"" + kind + "\"} " + number));
  }
}

}  // namespace
}  // namespace cowshed::cowtop
