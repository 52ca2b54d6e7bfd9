#include <cowshed/cow/cause_names.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/analysis/remedies.h>
#include <cowshed/tools/cowtop/report/text_report.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/glossary.h>

// What is no screen.  The screens are cases of screens_test.cc.
namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kPagesPerMiB = 256;

cow::ProcessCopies child_of(pid_t parent, pid_t pid, const std::string& comm,
                            std::uint64_t shared_mib, std::uint64_t copied_mib) {
  cow::ProcessCopies child = copier(pid, comm, copied_mib * kPagesPerMiB, parent);
  child.shared_at_fork_bytes = shared_mib << 20U;
  return child;
}

cow::Measurement pool(int workers, const std::vector<cow::CopyPattern>& patterns = {}) {
  std::vector<cow::ProcessCopies> processes = {root_copier(1, "server", 0)};
  for (int i = 0; i < workers; ++i) processes.push_back(child_of(1, 2 + i, "worker", 89, 76));
  if (!patterns.empty())
    for (cow::ProcessCopies& process : processes) process.patterns = patterns;
  return measurement_with(processes);
}

TEST(TextReport, FitsOnAScreenHoweverManyProcessesThereAre) {
  cow::Measurement measurement = pool(60);
  for (int i = 0; i < 3000; ++i) {
    cow::ProcessCopies compiler = child_of(1, 100 + i, "cc1plus" + std::to_string(i % 50), 9, 0);
    compiler.execs = 1;
    compiler.copied_pages_before_exec = 3;
    measurement.processes.push_back(compiler);
    measurement.processes.push_back(child_of(1, 5000 + i, "sh" + std::to_string(i % 40), 9, 1));
  }
  const std::string report = text_report(measurement);
  EXPECT_LT(std::ranges::count(report, '\n'), 24) << report;
  std::istringstream lines(report);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(live::columns_of(line), 80) << line;
}

TEST(TextReport, EachCauseHasARemedy) {
  for (const Cause& cause : causes()) {
    // One is not among the causes of the report's figures; the other's remedy needs nameless code.
    if (cause.name == cow::kProgramExit || cause.name == cow::kUnknown) continue;
    // Only Python has it, and what saves no memory is no remedy.
    if (cause.name == cow::kCachedHash || remedy_lines(cause.name).front().starts_with("nothing"))
      continue;
    // A line of WHY has room for so much.
    EXPECT_LE(cause.name.size() + 2 + cause.in_words.size(), 52U) << cause.name;
    EXPECT_THAT(text_report(pool(4, {{std::string(cause.name), 1, 99, ""}})),
                HasSubstr("\n  TRY "));
  }
}

TEST(TextReport, AnImportIsFoundInTheGlossaryByItsModule) {
  EXPECT_EQ(find_term("import of newsletter"), find_term("import"));
  EXPECT_EQ(find_term("import at shop.py:7"), find_term("import"));
  EXPECT_EQ(find_term("imports"), nullptr);
}

constexpr const char* kEscapes = "x\x1b]0;title\x07\nFAKE \xff\xf4\x90\x80\x80\xe2\x80\xae";
constexpr const char* kHarmless = "x?]0;title??FAKE ??????";

TEST(TextReport, NoNameSendsEscapesToTheTerminal) {
  cow::Measurement measurement = pool(2, {{"unknown", 0.6, 60, ""}, {kEscapes, 0.4, 40, kEscapes}});
  const cow::Frame nameless{"", "", 0, std::string("/tmp/") + kEscapes, 5, false};
  measurement.sampled.emplace().sites = {
      {{nameless}, {nameless}, 99, 2 * 76 * kPagesPerMiB, false}};
  measurement.sampled->mappings = {{kEscapes, 99, 2 * 76 * kPagesPerMiB}};
  measurement.processes[0].not_measured = kEscapes;
  measurement.sampled->types = {{kEscapes, 99, 76 * kPagesPerMiB}};
  const cow::Frame line{kEscapes, kEscapes, 4, "/usr/bin/python3.11", 0, false, true};
  measurement.sampled->sites.push_back({{line}, {line}, 76, 76 * kPagesPerMiB, false});
  measurement.sampling.emplace().unread = {kEscapes};
  const std::string report = text_report(measurement);
  EXPECT_THAT(report, HasSubstr(std::string("50%  ") + kHarmless)) << "of a type";
  EXPECT_THAT(report, HasSubstr(std::string(kHarmless) + " (")) << "of a line of Python";
  EXPECT_THAT(report, HasSubstr(std::string("install the debug symbols of ") + kHarmless));
  EXPECT_THAT(report, HasSubstr(std::string("40%  ") + kHarmless));
  EXPECT_THAT(report, HasSubstr(std::string("not measured: ") + kHarmless));
  EXPECT_THAT(report, HasSubstr(std::string("not read: ") + kHarmless));
  EXPECT_THAT(report, Not(HasSubstr("\x1b")));
  EXPECT_THAT(report, Not(HasSubstr("\nFAKE")));
}

}  // namespace
}  // namespace cowshed::cowtop
