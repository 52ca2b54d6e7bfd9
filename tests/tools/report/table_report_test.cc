#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/report/table_report.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

using ::testing::ContainsRegex;

cow::Measurement of(const cow::ProcessCopies& process) {
  cow::Measurement measurement = measurement_with({process});
  measurement.backend = "pagemap";
  measurement.exact = false;
  return measurement;
}

std::string table_of(const cow::ProcessCopies& process) { return table_report(of(process)); }

TEST(TableReport, EachCountIsInItsColumn) {
  cow::ProcessCopies process = copier(4711, "worker", 0);
  std::string columns;
  std::string counts;
  for (int count = 11; const cow::CountInfo& each : cow::kCounts) {
    if (*each.column == '\0') continue;
    process.*each.count = count;
    columns += std::string(each.column) + " *";
    counts += " +" + std::to_string(count++);
  }
  EXPECT_THAT(table_of(process), AllOf(ContainsRegex(columns), ContainsRegex(counts)));
}

cow::ProcessCopies worker_of(std::uint64_t shared_mib, std::uint64_t copied_mib) {
  cow::ProcessCopies process = copier(11228, "worker", copied_mib << 8U);
  process.shared_at_fork_bytes = shared_mib << 20U;
  return process;
}

TEST(TableReport, ManyMemoriesAreNotAllListedAndThoseNotLookedAtAreCounted) {
  cow::ProcessCopies seen = worker_of(89, 76);
  seen.memory = {87ULL << 20U, 1ULL << 20U, 2'600'000'000};
  cow::ProcessCopies missed = worker_of(89, 76);
  missed.end_ns = 3'000'000'000;
  cow::Measurement measurement = of(seen);
  for (int i = 0; i < 30; ++i) measurement.processes.push_back(seen);
  for (int i = 0; i < 2; ++i) measurement.processes.push_back(missed);
  EXPECT_THAT(table_report(measurement),
              HasSubstr("11 more with memory still shared: see --json\n"
                        "2 processes ended before their memory was looked at\n"));
}

TEST(TableReport, SaysWhyOfTheProcessesThatWereSampledMost) {
  cow::Measurement measurement;
  for (pid_t pid = 1; pid <= 30; ++pid) {
    cow::ProcessCopies& process = measurement.processes.emplace_back();
    process.pid = pid;
    process.patterns = {{"stack", 1, static_cast<std::uint64_t>(pid), "push rbx"}};
  }
  const std::string table = table_report(measurement);
  EXPECT_THAT(table, HasSubstr("why: PID 21 "));
  EXPECT_THAT(table, HasSubstr("why: PID 30 "));
  EXPECT_THAT(table, Not(HasSubstr("why: PID 20 ")));
  EXPECT_THAT(table, HasSubstr("why: 20 processes with fewer than 21 samples each"));
}

TEST(TableReport, NoTextOfARecordingSendsEscapesToTheTerminal) {
  constexpr const char* kEscapes = "a\x1b[31m\nb";
  cow::Measurement measurement = of({});
  measurement.backend = kEscapes;
  cow::ProcessCopies& process = measurement.processes[0];
  process.comm = kEscapes;
  process.patterns = {{kEscapes, 1, 40, kEscapes}};
  process.not_measured = kEscapes;
  process.transfers = {{kEscapes, kEscapes, kEscapes, kEscapes, 1, 1, 1}};
  for (const std::string& table :
       {table_report(measurement), process_report(measurement, process)}) {
    EXPECT_THAT(table, HasSubstr("100% a?[31m?b"));
    EXPECT_THAT(table, HasSubstr("by a?[31m?b, sent by"));
    EXPECT_THAT(table, Not(HasSubstr("\x1b")));
    EXPECT_THAT(table, Not(HasSubstr("\nb")));
  }
}

TEST(Printable, OnlyWholeCharactersThatAreSeen) {
  EXPECT_EQ(printable("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbd"),
            "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbd");
  for (const char* none : {"\xf4\x90\x80\x80", "\xf4\xbf\xbf\xbf", "\xf5\x80\x80\x80",  // too large
                           "\xed\xa0\x80", "\xed\xbf\xbf",  // surrogates
                           "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",  // overlong
                           "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\x80"})
    EXPECT_EQ(printable(none), std::string(std::string_view(none).size(), '?'));
  for (const char* unseen : {"\u009b", "\u061c", "\u200b", "\u200f", "\u2028", "\u202e", "\u2066",
                             "\ufeff", "\ufff9", "\U000e0041"})
    EXPECT_EQ(printable(unseen), "?");
  EXPECT_EQ(printable("a\nb"), "a?b");
  EXPECT_EQ(printable_lines("a\nb\x1b"), "a\nb?");
}

TEST(TableReport, OfManyArenasTheRestIsSummedUp) {
  cow::ProcessCopies process;
  for (std::uint64_t i = 0; i < 30; ++i)
    process.arenas.push_back({"arena " + std::to_string(i), 1ULL << 20, i});
  const std::string table = table_of(process);
  EXPECT_THAT(table, HasSubstr("arena 'arena 29' of 1.0 MiB: 29 pages"));
  EXPECT_THAT(table, HasSubstr("arena 'arena 10' of 1.0 MiB: 10 pages"));
  EXPECT_THAT(table, Not(HasSubstr("'arena 9'")));
  EXPECT_THAT(
      table,
      HasSubstr("10 more lines of arenas and files with 45 copied pages in all: see --json"));
}

}  // namespace
}  // namespace cowshed::cowtop
