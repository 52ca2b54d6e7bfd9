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

TEST(TableReport, ShowsWhatWasCopied) {
  cow::ProcessCopies process = copier(4711, "worker", 512);
  process.shared_at_fork_bytes = 4ULL << 20;
  process.signal = SIGTERM;
  process.arenas.push_back({"index", 8ULL << 20, 0});
  process.end_ns = 3'000'000'000;
  process.memory = {2ULL << 20, 1ULL << 20, 2'500'000'000};
  const std::string table = table_of(process);
  for (const char* text :
       {"pagemap backend, sampled", "4711", "  worker", "2.0", "50.0%", "SIGTERM",
        "PID 4711: 2.0 MiB still shared, 1.0 MiB its own; sampled 0.5 s before its end",
        "arena 'index' of 8.0 MiB: 0 pages copied by PID 4711", "total copied: 2.0 MiB"}) {
    EXPECT_THAT(table, HasSubstr(text));
  }
}

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

// A program that a shell started shares nothing of the shell's memory.
TEST(TableReport, AnExecEndsTheSharing) {
  cow::ProcessCopies process = worker_of(7, 5);
  process.copied_pages_before_exec = 3;
  EXPECT_THAT(table_of(process), HasSubstr("11228    worker          7.0         5.0     71.4%"));
  process.execs = 1;
  EXPECT_THAT(table_of(process), HasSubstr("11228    worker            -         0.0  executed"));
}

TEST(TableReport, APeakHasItsTime) {
  cow::ProcessCopies process = worker_of(7, 5);
  EXPECT_THAT(table_of(process), HasSubstr("  71.4%        -         -     -"));
  process.peak = {9ULL << 20U, 3'500'000'000};
  cow::Measurement measurement = of(process);
  measurement.taken_ns = 4'000'000'000;
  measurement.duration_s = 2;
  EXPECT_THAT(table_report(measurement), HasSubstr("  71.4%        -       9.0   1.5"));
}

TEST(TableReport, AStaleSampleOfMemorySaysSo) {
  cow::ProcessCopies process = worker_of(89, 76);
  process.end_ns = 3'000'000'000;
  process.memory = {87ULL << 20U, 1ULL << 20U, 2'600'000'000};
  EXPECT_THAT(table_of(process),
              HasSubstr("PID 11228: 87.0 MiB still shared, 1.0 MiB its own; sampled 0.4 s before "
                        "its end: stale, it has copied more since\n"));
  process.memory->shared_bytes = 13ULL << 20U;
  EXPECT_THAT(table_of(process), Not(HasSubstr("stale")));
  process.memory->shared_bytes = 87ULL << 20U;
  process.execs = 1;
  EXPECT_THAT(table_of(process), Not(HasSubstr("stale"))) << "of another program";
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

// Most samples of the first process were lost, and none of the second.
TEST(TableReport, SitesAreRankedByTheirCopiesAndSoAreTheirShares) {
  cow::Measurement measurement = of(worker_of(100, 10));
  measurement.sampling = {64, 100, 60, 40};
  cow::SampledCopies& sampled = measurement.sampled.emplace();
  sampled.samples = 60;
  const cow::Frame place{"fill()", "/src/fill.cc", 12, "/bin/fill", 0, false};
  const cow::Frame copier{"memcpy", "", 0, "/lib/libc.so.6", 0, false};
  const cow::Frame caller{"main", "", 0, "/bin/fill", 0, false};
  sampled.sites = {{{copier, place}, {copier, place, caller}, 20, 1280, false}};
  EXPECT_THAT(table_report(measurement), HasSubstr(" 50.0%       ~1280  fill() fill.cc:12\n"
                                                   "                      > memcpy (libc.so.6)\n"
                                                   "                      < main (fill)\n"));
}

TEST(TableReport, SaysHowManyFaultsMayBeInTheWrongClass) {
  cow::Measurement measurement = of({});
  EXPECT_THAT(table_report(measurement), Not(HasSubstr("right class")));
  measurement.unsure_faults = 0;
  EXPECT_THAT(table_report(measurement), Not(HasSubstr("right class")));
  measurement.unsure_faults = 3;
  EXPECT_THAT(table_report(measurement),
              HasSubstr("; 3 faults perhaps not in the right class; own cost"));
}

TEST(TableReport, SaysWhatItHasNotSeenAndTheSumsOfTrees) {
  cow::ProcessCopies worker = copier(2, "worker", 256);
  worker.ppid = 1;
  cow::ProcessCopies child = worker;
  child.pid = 3;
  child.ppid = 2;
  child.not_measured = "PID 3: not permitted";
  cow::ProcessCopies root;
  root.role = cow::Role::root;
  root.pid = 1;
  cow::Measurement measurement = measurement_with({root, worker, child});
  EXPECT_THAT(table_report(measurement), Not(HasSubstr("before they were seen")));
  measurement.not_seen = {3, 3};
  const std::string table = table_report(measurement);
  for (const char* text :
       {"processes that ended before they were seen: 3\n", "not measured: PID 3: not permitted\n",
        "tree of PID 2 (worker): 2.0 MiB copied by 2 processes\n"}) {
    EXPECT_THAT(table, HasSubstr(text));
  }
  measurement.not_seen = {3, 4711};
  EXPECT_THAT(table_report(measurement), HasSubstr("seen: 3 to 4711\n"));
  measurement.not_seen = {3, std::nullopt};
  EXPECT_THAT(table_report(measurement), HasSubstr("seen: at least 3\n"));
}

TEST(TableReport, SaysWhy) {
  cow::ProcessCopies process;
  process.pid = 4711;
  process.comm = "python3";
  process.patterns = {{"reference count", 0.951, 951, "add [rdx], 1"},
                      {"garbage collector", 0.045, 45, "mov [rdx + 8], rax"},
                      {"stack", 0.004, 4, "push rbx"}};
  EXPECT_THAT(table_of(process),
              HasSubstr("why: PID 4711 (python3): 95% reference count (add [rdx], 1), "
                        "4% garbage collector\n"));
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
  EXPECT_THAT(table, HasSubstr("why: 20 more processes with fewer than 21 samples each"));
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
    EXPECT_THAT(table, HasSubstr("100% a?[31m?b (a?[31m?b)\n"));
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

TEST(TableReport, ATotalThatIsNotKnownIsNotZero) {
  cow::Measurement measurement = of({});
  EXPECT_THAT(table_report(measurement), HasSubstr("total copied: -\n"));
  measurement.processes.push_back(copier(2, "", 256));
  EXPECT_THAT(table_report(measurement),
              HasSubstr("total copied: 1.0 MiB, and what is not known (-)\n"));
  measurement.processes.erase(measurement.processes.begin());
  EXPECT_THAT(table_report(measurement), HasSubstr("total copied: 1.0 MiB\n"));
}

TEST(TableReport, MemoryThatCannotBeReadIsNotSilent) {
  cow::ProcessCopies process;
  EXPECT_THAT(table_of(process), Not(HasSubstr("cannot be read")));
  process.unreadable = true;
  EXPECT_THAT(
      table_of(process),
      HasSubstr("the memory of 1 process cannot be read: what it still shares, and of which "
                "objects the copies are, is not known; run as its user, or with "
                "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH\n"));
}

TEST(TableReport, OfManyArenasTheRestIsSummedUp) {
  cow::ProcessCopies process;
  for (std::uint64_t i = 0; i < 30; ++i)
    process.arenas.push_back({"arena " + std::to_string(i), 1ULL << 20, i});
  const std::string table = table_of(process);
  EXPECT_THAT(table, HasSubstr("arena 'arena 29' of 1.0 MiB: 29 pages"));
  EXPECT_THAT(table, HasSubstr("arena 'arena 10' of 1.0 MiB: 10 pages"));
  EXPECT_THAT(table, Not(HasSubstr("'arena 9'")));
  EXPECT_THAT(table, HasSubstr("10 more lines of arenas with 45 copied pages in all: see --json"));
}

TEST(TableReport, SitesAndRanges) {
  cow::Measurement measurement = of(copier(4711, "", 640));
  measurement.sampling = {64, 10, 10, 0};
  cow::SampledCopies sampled;
  sampled.samples = 10;
  const cow::Frame frame = {"fill", "", 0, "", 0, false};
  sampled.sites = {{{frame}, {frame}, 9, 576, true}, {{frame}, {frame}, 1, 64, false}};
  measurement.sampled = sampled;
  sampled.ranges = {{0x400000, 0x800000, "anonymous", 1, 64},
                    {0x200000, 0x400000, "[heap]", 9, 576}};
  measurement.processes[0].sampled = sampled;
  const std::string table = table_report(measurement);
  EXPECT_THAT(table, HasSubstr("64 copies; 0 samples lost\n"
                               " 90.0%        ~576  fill\n"
                               "                      < callers that were not seen\n"
                               " 10.0%         ~64  fill\n"
                               "range 0x200000-0x400000 of '[heap]' in PID 4711: ~576 copies, "
                               "estimated\n"
                               "range 0x400000-0x800000 of 'anonymous' in PID 4711: ~64 copies"));
  measurement.sampling->lost = 3;
  EXPECT_THAT(table_report(measurement),
              HasSubstr("3 samples lost, of whatever copied fastest; a larger -c loses fewer\n"));
  measurement.processes[0].copied_file_pages.reset();
  EXPECT_THAT(table_report(measurement), HasSubstr("\n     -        ~576  fill\n"));
}

TEST(TableReport, OfPythonHasTypesAndTheLinesThatAreNotKnown) {
  const std::string table = table_report(full_measurement());
  EXPECT_THAT(table, HasSubstr("< total (pool.py:4)\n"));
  EXPECT_THAT(table, HasSubstr("Python objects of type 'str': ~448 copies, estimated\n"));
  EXPECT_THAT(table, HasSubstr("Python frames could not be read: 1\n"));
  EXPECT_THAT(table, HasSubstr("container aaaaaaaaaaaa: PID 41\n"));
}

}  // namespace
}  // namespace cowshed::cowtop
