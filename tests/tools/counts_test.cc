#include <fmt/format.h>

#include <cowshed/cow/figures.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tests/tools/report/screens.h>
#include <cowshed/tools/cowtop/analysis/comparison.h>
#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/check/verdict.h>
#include <cowshed/tools/cowtop/html/html_report.h>
#include <cowshed/tools/cowtop/live/model/columns.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/table_report.h>
#include <cowshed/tools/cowtop/serve/metrics_sums.h>
#include <cowshed/tools/cowtop/serve/metrics_text.h>
#include <cowshed/tools/cowtop/text/figures.h>
#include <cowshed/tools/cowtop/text/glossary.h>

namespace cowshed::cowtop {
namespace {

std::string with_single_spaces(std::string text) {
  for (auto at = text.find(".  "); at != text.npos; at = text.find(".  ")) text.erase(at + 1, 1);
  return text;
}

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
    const std::string meaning = with_single_spaces(each.meaning);
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

// A parent and two workers, of which one gives memory back and is asked in the end.
cow::Measurement run_with_all_figures() {
  cow::ProcessCopies root = copier(10, "server", 700);
  root.role = cow::Role::root;
  root.execs = 1;
  cow::ProcessCopies worker = copier(11, "worker", 2713);
  worker.ppid = 10;
  worker.shared_at_fork_bytes = 27'367 * cow::kPageSize;
  worker.zero_filled_pages = 1024;
  worker.memory = {9303 * cow::kPageSize, (2713 + 1024) * cow::kPageSize, 1, 1024,
                   411 * cow::kPageSize};
  worker.memory->merged_bytes = 119 * cow::kPageSize;
  worker.memory->undone_bytes = 127 * cow::kPageSize;
  worker.alike = {(2713 + 1024) * cow::kPageSize, 0, 217 * cow::kPageSize, std::nullopt,
                  513 * cow::kPageSize};
  worker.peak = {40'000 * cow::kPageSize, 2'000'000'000};
  worker.pss = {31'000 * cow::kPageSize, 77 * cow::kPageSize, 1};
  worker.fork_costs = {.durations = {{1'277'952, 2}, {2'162'688, 3}},
                       .total_ns = 9'000'000,
                       .longest_ns = 2'171'717,
                       .failures = {{ENOMEM, 7}}};
  worker.alive = true;
  cow::Measurement measurement = measurement_with({root, worker});
  measurement.taken_ns = 5'000'000'000;
  measurement.duration_s = 4.5;
  return measurement;
}

// The cell of a `--wide` row.  Each column ends where its title does.
std::string cell_of(const std::string& table, pid_t pid, std::string_view title) {
  const auto heading = table.find("PID  ");
  const auto row = table.find(fmt::format("\n{:>3}  ", pid), heading);
  if (heading == table.npos || row == table.npos) return "no row";
  const auto column = table.find(fmt::format("  {}", title), heading) + 2;
  const auto end = std::min(table.find("  ", column), table.find('\n', column)) - heading;
  const std::string cells = table.substr(row + 1, end);
  return cells.substr(cells.find_last_of(' ') + 1);
}

// Of all processes, in every view that shows it.
void expect_one_value_in_every_view(const cow::Measurement& measurement) {
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(measurement);
  const Json json = run_json(measurement)["processes"];
  const std::string table = table_report(measurement);
  live::Model model;
  model.update(measurement);
  std::map<std::string, std::uint64_t> sums;
  Budget budget;
  budget.max_copied_bytes = budget.max_new_bytes = 0;
  budget.max_ratio = 0;
  const Verdict verdict = verdict_on(measurement, budget, {}, {});
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    for (const cow::Figure& each : cow::kFigures) {
      SCOPED_TRACE(fmt::format("{} {}{}", process.pid, each.name, each.metric));
      const auto value = each.of(measurement, process, copies[i]);
      if (!each.name.empty()) {
        std::string path = "/" + std::string(each.name);
        std::ranges::replace(path, '.', '/');
        const Json field = json[i].value(Json::json_pointer(path), Json());
        EXPECT_EQ(field.is_null() ? std::nullopt : std::optional(field.get<double>()), value);
      }
      if (!each.title.empty()) {
        EXPECT_EQ(cell_of(table, process.pid, each.title), figure_text(each, value));
        EXPECT_EQ(live::cell(live::column_of(each.title), process, model),
                  figure_text(each, value));
      }
      if (!each.metric.empty() && value && process.alive)
        sums[std::string(each.metric)] += static_cast<std::uint64_t>(*value);
    }
    for (const Held& held : verdict.held)
      if (held.pid == process.pid && held.used_bytes)
        EXPECT_EQ(held.used_bytes.value() * (held.limit == Limit::fresh ? process.processes : 1),
                  held.limit == Limit::fresh ? copies[i].new_bytes : copies[i].copied_bytes());
  }
  MetricsSums metrics(1000, [](pid_t) { return "/"; });
  metrics.add(measurement, {});
  for (const CommandMetrics& each : metrics.metrics().commands)
    for (std::size_t i = 0; i < cow::kFigures.size(); ++i)
      if (const std::string metric(cow::kFigures.at(i).metric); !metric.empty())
        sums[metric] -= each.running.figures.at(i).value_or(0);
  for (const auto& [metric, left] : sums) EXPECT_EQ(left, 0U) << metric;
  const Comparison comparison = compare(measurement, measurement);
  std::multiset<std::optional<std::uint64_t>> compared;
  for (const Change& each : comparison.processes) compared.insert(each.after);
  for (const cow::ForkCopies& each : copies) {
    const auto found = compared.find(each.copied_pages);
    ASSERT_NE(found, compared.end()) << each.copied_pages.value_or(0);
    compared.erase(found);
  }
  for (const ProcessGroup& group : summarize(measurement, true).groups) {
    const auto process =
        std::ranges::find(measurement.processes, group.pid, &cow::ProcessCopies::pid);
    const cow::ForkCopies& of =
        copies.at(static_cast<std::size_t>(process - measurement.processes.begin()));
    EXPECT_EQ(group.copied_bytes, of.copied_bytes()) << group.pid;
    EXPECT_EQ(group.still_shared, of.still_shared_ratio()) << group.pid;
  }
}

// A line of figures.h is enough, but for the schema's line, which this test prints.
TEST(Figures, HaveOneValueInEveryView) {
  const cow::Measurement measurement = run_with_all_figures();
  const cow::ProcessCopies& worker = measurement.processes[1];
  const cow::ForkCopies copies = cow::fork_copies(measurement)[1];
  const Json json = run_json(measurement)["processes"][1];
  const std::string schema = contents_of(std::string(SCHEMAS) + "/cowshed.run-2.json");
  const std::string table = table_report(measurement);
  const std::string page = html_report(measurement, {}, {}, "");
  live::Model model;
  model.update(measurement);
  MetricsSums sums(10, [](pid_t) { return "/"; });
  sums.add(measurement, {});
  const std::string metrics = metrics_text(sums.metrics(), MetricsFormat::openmetrics);
  for (const cow::Figure& each : cow::kFigures) {
    const auto value = each.of(measurement, worker, copies);
    ASSERT_TRUE(value) << each.name << each.metric;
    const auto whole = std::to_string(static_cast<std::uint64_t>(*value));
    const bool is_fraction = each.unit == cow::Unit::ratio || each.unit == cow::Unit::seconds;
    const std::string text = figure_text(each, value);
    if (!each.name.empty() && each.name.find('.') == each.name.npos) {
      const std::string field(each.name);
      EXPECT_EQ(json[field].dump(), is_fraction ? Json(*value).dump() : whole) << field;
      std::string meaning = with_single_spaces(std::string(each.meaning));
      for (auto at = meaning.find('"'); at != meaning.npos; at = meaning.find('"', at + 2))
        meaning.insert(at, "\\");
      const char* type = is_fraction ? R"("type": ["number", "null"], "minimum": 0)"
                                     : R"("$ref": "#/$defs/maybe_count")";
      EXPECT_THAT(schema,
                  HasSubstr(fmt::format(R"("{}": {{"description": "{} Not in a recording.", {}}})",
                                        field, meaning, type)));
    }
    if (!each.title.empty()) {
      EXPECT_THAT(table, HasSubstr(" " + text + "  ")) << each.title;
      EXPECT_EQ(live::cell(live::column_of(each.title), worker, model), text);
      EXPECT_THAT(page, HasSubstr("\"name\":\"" + std::string(each.name) + "\""));
      EXPECT_NE(find_term(each.title), nullptr) << each.title;
    }
    if (!each.metric.empty())
      EXPECT_THAT(metrics, HasSubstr("\n" + std::string(each.metric) +
                                     "{comm=\"worker\",cgroup=\"/\"} " + whole + "\n"));
  }
}

TEST(Figures, AreAlikeInEveryViewOfEachRecording) {
  expect_one_value_in_every_view(full_measurement());
  for (const auto& [path, screens] : all_screens())
    for (const ScreenCase& each : screens) {
      SCOPED_TRACE(each.name);
      expect_one_value_in_every_view(measurement_of(each));
    }
}

}  // namespace
}  // namespace cowshed::cowtop
