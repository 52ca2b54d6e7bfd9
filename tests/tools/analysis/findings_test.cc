#include <cowshed/cow/cause_names.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/analysis/remedies.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kPagesPerMiB = 256;

// A Python server and two workers that copied 40 MiB each, and page tables of 3 MiB for each.
cow::Measurement python_server() {
  cow::ProcessCopies root = root_copier(1, "python3.13", 0);
  root.execs = 1;
  root.fork_costs = {.durations = {{9'000'000, 2}}, .longest_ns = 9'000'000};
  cow::Measurement measurement = measurement_with({root});
  for (pid_t pid = 2; pid < 4; ++pid) {
    cow::ProcessCopies& worker =
        measurement.processes.emplace_back(copier(pid, "worker", 40 * kPagesPerMiB, 1));
    worker.shared_at_fork_bytes = 100 << 20;
    worker.page_tables_at_fork_bytes = 3 << 20;
    worker.patterns = {{std::string(cow::kReferenceCount), 1, 99, ""}};
  }
  return measurement;
}

TEST(Findings, SayWhyAndWhatToDoAndWhatItMaySave) {
  const nlohmann::json findings = findings_json(python_server());
  EXPECT_EQ(findings[0], nlohmann::json::parse(R"({"kind": "copied", "bytes": 83886080,
                                         "subject": "worker", "of_bytes": 209715200})"));
  const auto of_kind = [&](const char* kind) {
    return *std::ranges::find_if(findings,
                                 [&](const nlohmann::json& each) { return each["kind"] == kind; });
  };
  const nlohmann::json cause = of_kind("cause");
  EXPECT_EQ(cause["subject"], cow::kReferenceCount);
  EXPECT_EQ(cause["bytes"], 80 << 20);
  EXPECT_EQ(
      cause["remedies"],
      nlohmann::json::parse(R"([{"rank": 1, "saves_bytes": 83886080, "cure": "cowshed run", "text":
                "call cowshed.freeze() before the fork: then reads write no counts"}])"));
  const nlohmann::json cost = of_kind("cost");
  EXPECT_EQ(cost["subject"], kPageTablesOfForks);
  EXPECT_EQ(cost["remedies"][0]["rank"], 2);
}

// freeze() also stops the collections.  Nobody knows which of their copies counts would have made.
TEST(Findings, ASavingThatIsNotKnownToAFifthIsNull) {
  cow::Measurement measurement = python_server();
  for (cow::ProcessCopies& each : measurement.processes)
    each.patterns = {{std::string(cow::kReferenceCount), 0.6, 60, ""},
                     {std::string(cow::kGarbageCollector), 0.4, 40, ""}};
  std::size_t unknown = 0;
  for (const nlohmann::json findings = findings_json(measurement); const auto& each : findings)
    if (each.value("subject", "") == cow::kReferenceCount && each.contains("remedies"))
      unknown += each["remedies"][0]["saves_bytes"] == nullptr ? 1 : 0;
  EXPECT_EQ(unknown, 1);
}

TEST(Findings, WhereTheSharingHoldsTheShellThatStartedItIsNotTheSubject) {
  cow::Measurement measurement = python_server();
  for (cow::ProcessCopies& each : measurement.processes) each.copied_anon_pages = 5;
  cow::ProcessCopies shell = copier(9, "sh", 100, 1);
  shell.shared_at_fork_bytes = 300 << 10;
  measurement.processes.push_back(shell);
  EXPECT_EQ(findings_json(measurement)[0]["kind"], "little");
  EXPECT_EQ(findings_json(measurement)[0]["subject"], "worker");
}

TEST(Findings, OfNothingAreOneVerdict) {
  EXPECT_EQ(findings_json({}),
            Json::parse(R"([{"kind": "not_known", "bytes": 0, "estimated": true}])"));
}

}  // namespace
}  // namespace cowshed::cowtop
