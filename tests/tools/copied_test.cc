#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/analysis/comparison.h>
#include <cowshed/tools/cowtop/analysis/summary.h>
#include <cowshed/tools/cowtop/check/verdict.h>
#include <cowshed/tools/cowtop/live/model/columns.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/table_report.h>
#include <cowshed/tools/cowtop/serve/metrics_sums.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kPagesOfAMiB = 256;

cow::ProcessCopies copier_of_mib(pid_t pid, pid_t ppid, std::uint64_t mib) {
  cow::ProcessCopies result = copier(pid, "worker", mib * kPagesOfAMiB, ppid);
  result.start_ns = static_cast<std::uint64_t>(pid);
  result.copied_file_pages = 3 * kPagesOfAMiB;  // no fork shared them
  result.shared_at_fork_bytes = 128ULL << 20U;
  return result;
}

// A server with a worker, a worker that copies half at its end, a program that it runs, and one
// that forks.
cow::Measurement run_with_six_processes() {
  cow::ProcessCopies root = copier_of_mib(10, 1, 7);
  root.role = cow::Role::root;
  root.execs = 1;
  root.shared_at_fork_bytes.reset();
  cow::ProcessCopies ending = copier_of_mib(12, 10, 32);
  ending.patterns = {{std::string(cow::kProgramExit), 0.5, 10, ""}};
  cow::ProcessCopies executed = copier_of_mib(13, 10, 64);
  executed.execs = 1;
  executed.copied_pages_before_exec = 2 * kPagesOfAMiB;
  cow::ProcessCopies forking = copier_of_mib(14, 10, 24);
  forking.execs = 1;
  forking.copied_pages_before_exec = 24 * kPagesOfAMiB;
  return measurement_with(
      {root, copier_of_mib(11, 10, 84), ending, executed, forking, copier_of_mib(15, 14, 0)});
}

constexpr std::uint64_t kCopied[] = {7, 84, 16, 2, 24, 0};  // in MiB
constexpr std::uint64_t kAllCopied = 7 + 84 + 16 + 2 + 24;

TEST(Copied, IsTheSameInEveryView) {
  const cow::Measurement measurement = run_with_six_processes();
  const Summary summary = summarize(measurement, true);
  EXPECT_EQ(summary.copied_bytes + summary.before_exec_bytes, kAllCopied << 20U);
  const Json json = run_json(measurement);
  live::Model model;
  model.update(measurement);
  const std::string table = table_report(measurement);
  for (std::size_t i = 0; i < std::size(kCopied); ++i) {
    const cow::ProcessCopies& each = measurement.processes[i];
    const ::testing::ScopedTrace trace(__FILE__, __LINE__, each.pid);
    EXPECT_EQ(json["processes"][i]["copied_bytes"], kCopied[i] << 20U);
    const std::string cell = std::to_string(kCopied[i]) + ".0";
    EXPECT_EQ(live::cell(live::column_of("COPIED"), each, model), cell);
    EXPECT_THAT(table, HasSubstr(" " + cell + " "));
    for (const ProcessGroup& group : summary.groups)
      if (group.pid == each.pid) EXPECT_EQ(group.copied_bytes, kCopied[i] << 20U);
  }
  EXPECT_EQ(compare(measurement, measurement).total.after, kAllCopied * kPagesOfAMiB);
  MetricsSums sums(10, [](pid_t) { return "/"; });
  sums.add(measurement, {});
  std::uint64_t metric = 0;
  for (const CommandMetrics& each : sums.metrics().commands) metric += *each.copied_pages;
  EXPECT_EQ(metric, kAllCopied * kPagesOfAMiB);
}

TEST(Copied, ABudgetOfTheReportsFigurePassesAndAPageLessFails) {
  const auto is_over = [](std::uint64_t bytes, Budget::Per per) {
    Budget budget;
    budget.max_copied_bytes = bytes;
    budget.per = per;
    return verdict_on(run_with_six_processes(), budget, std::nullopt, {}).is_over();
  };
  EXPECT_FALSE(is_over(84ULL << 20U, Budget::Per::child));
  EXPECT_TRUE(is_over((84ULL << 20U) - cow::kPageSize, Budget::Per::child));
  EXPECT_FALSE(is_over(kAllCopied << 20U, Budget::Per::tree));
  EXPECT_TRUE(is_over((kAllCopied << 20U) - cow::kPageSize, Budget::Per::tree));
}

}  // namespace
}  // namespace cowshed::cowtop
