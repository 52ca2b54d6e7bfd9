#include <algorithm>
#include <csignal>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/report/table_report.h>
#include <cowshed/tools/cowtop/report/text_report.h>
#include <cowshed/tools/cowtop/text/causes.h>
#include <cowshed/tools/cowtop/text/display_width.h>
#include <cowshed/tools/cowtop/text/glossary.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kPagesPerMiB = 256;

cow::ProcessCopies root_of(const std::string& comm, std::uint64_t mib = 0) {
  cow::ProcessCopies root = copier(1, comm, mib * kPagesPerMiB);
  root.role = cow::Role::root;
  root.execs = 1;
  return root;
}

cow::ProcessCopies child_of(pid_t parent, pid_t pid, const std::string& comm,
                            std::uint64_t shared_mib, std::uint64_t copied_mib) {
  cow::ProcessCopies child = copier(pid, comm, copied_mib * kPagesPerMiB);
  child.ppid = parent;
  child.shared_at_fork_bytes = shared_mib << 20U;
  return child;
}

// It touched so much, and held it until its end.
void set_new(cow::ProcessCopies& child, std::uint64_t mib) {
  child.zero_filled_pages = mib * kPagesPerMiB;
  child.most_risen_bytes = mib << 20U;
}

cow::Measurement pool(int workers, const std::vector<cow::CopyPattern>& patterns = {}) {
  std::vector<cow::ProcessCopies> processes = {root_of("server")};
  for (int i = 0; i < workers; ++i) processes.push_back(child_of(1, 2 + i, "worker", 89, 76));
  if (!patterns.empty())
    for (cow::ProcessCopies& process : processes) process.patterns = patterns;
  return measurement_with(processes);
}

// The report on one line, which the verdict begins.
std::string report_of(const std::vector<cow::ProcessCopies>& processes) {
  std::string report = text_report(measurement_with(processes));
  std::ranges::replace(report, '\n', ' ');
  return report;
}

void expect_fits_on_a_screen(const std::string& report) {
  EXPECT_LT(std::ranges::count(report, '\n'), 24) << report;
  std::istringstream lines(report);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(live::columns_of(line), 80) << line;
}

TEST(TextReport, AlikeWorkersAreOneRow) {
  const std::string report = text_report(pool(4));
  EXPECT_THAT(report, HasSubstr("4 worker processes each copied 76.0 of 89.0 MiB shared (85%): "
                                "304.0 MiB in all.\n"));
  EXPECT_THAT(report, HasSubstr("    4 x worker                     89.0 MiB  76.0 MiB each    -   "
                                "15% #.........\n"));
}

TEST(TextReport, IsExactOnlyIfNoEventWasLost) {
  cow::Measurement measurement = pool(4);
  measurement.exact = true;
  measurement.lost_events = 0;
  EXPECT_THAT(text_report(measurement), HasSubstr("Exact (eBPF)"));
  EXPECT_THAT(table_report(measurement), HasSubstr("backend, exact;"));
  measurement.lost_events = 3;
  EXPECT_THAT(
      text_report(measurement),
      AllOf(HasSubstr("3 events LOST (eBPF): counts are too low."), Not(HasSubstr("Exact"))));
  EXPECT_THAT(table_report(measurement), HasSubstr("backend, inexact;"));
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
  expect_fits_on_a_screen(text_report(measurement));
}

TEST(TextReport, TheWorkerThatCopiesMostComesFirst) {
  cow::Measurement measurement = pool(2);
  measurement.processes.push_back(child_of(1, 9, "greedy", 89, 88));
  measurement.processes.push_back(child_of(1, 10, "greedy", 89, 80));
  const std::string report = text_report(measurement);
  EXPECT_LT(report.find("2 x greedy"), report.find("2 x worker"));
  EXPECT_THAT(report, HasSubstr("2 greedy processes each copied 84.0 of 89.0 MiB shared"));
}

TEST(TextReport, AllHasARowForEachProcess) {
  const std::string report = text_report(pool(3), {.each_process = true});
  for (const char* row : {"    2 worker ", "    3 worker ", "    4 worker "})
    EXPECT_THAT(report, HasSubstr(row));
}

TEST(TextReport, AParentThatCopiesIsNamed) {
  EXPECT_THAT(report_of({root_of("redis-server", 32), child_of(1, 2, "redis-server", 290, 0)}),
              StartsWith("redis-server copied 32.0 MiB of the 290.0 MiB shared with its child."));
}

TEST(TextReport, EachSaveOfAParentHasARow) {
  cow::ProcessCopies save = child_of(1, 2, "redis-server", 290, 0);
  save.parent_copied_pages = 20 * kPagesPerMiB;
  save.start_ns = 1'000'000'000;
  save.end_ns = 3'300'000'000;
  cow::ProcessCopies next = save;
  next.pid = 3;
  next.parent_copied_pages = 12 * kPagesPerMiB;
  const auto report = [&] {
    return text_report(measurement_with({root_of("redis-server", 32), save, next}));
  };
  EXPECT_THAT(report(), Not(HasSubstr("FORKS"))) << "they lived at the same time";
  next.start_ns = save.end_ns.value();
  next.end_ns = 5'600'000'000;
  EXPECT_THAT(report(),
              HasSubstr("  FORKS  child 2, 2.3 s: its parent copied 20.0 of 290.0 MiB (7%)\n"
                        "         child 3, 2.3 s: its parent copied 12.0 of 290.0 MiB (4%)\n"));
}

TEST(TextReport, NoRatioIsAboveAHundredPercent) {
  cow::ProcessCopies mold = child_of(1, 2, "mold", 16, 160);
  std::vector<cow::ProcessCopies> processes = {root_of("root"), mold};
  for (int i = 0; i < 10; ++i) processes.push_back(child_of(2, 3 + i, "mold", 16, 0));
  EXPECT_THAT(report_of(processes),
              StartsWith("mold copied 160.0 MiB: some pages again after each of 10 forks."));
}

TEST(TextReport, WhatForksNothingSaysSo) {
  EXPECT_THAT(
      report_of({root_of("true")}),
      StartsWith("true forked no process in 0.0 s: it shares no memory, so none was copied."));
}

TEST(TextReport, ProgramsThatWereExecutedAreOutOfTheVerdict) {
  cow::ProcessCopies compilers = child_of(1, 2, "cc1", 9, 50);
  compilers.processes = 1000;
  compilers.execs = 1000;
  compilers.copied_pages_before_exec = 3000;  // 12 MiB in all
  const std::string report = text_report(measurement_with({root_of("make"), compilers}));
  EXPECT_THAT(report, HasSubstr("those that were forked ran"));
  EXPECT_THAT(report, HasSubstr("  1000 x cc1 "));
}

TEST(TextReport, LittleIsSaidToBeLittle) {
  EXPECT_THAT(
      report_of({root_of("server"), child_of(1, 2, "w", 890, 1), child_of(1, 3, "w", 890, 0)}),
      HasSubstr("The sharing holds: 2 children share up to 890.0 MiB each"));
}

TEST(TextReport, ACrashIsSaidAndAnOrderlyEndIsNot) {
  cow::ProcessCopies killed = child_of(1, 2, "worker", 8, 0);
  killed.signal = SIGSEGV;
  cow::ProcessCopies ended = child_of(1, 3, "worker", 8, 0);
  ended.signal = SIGTERM;
  const std::string report = text_report(measurement_with({root_of("server"), killed, ended}));
  EXPECT_THAT(report, HasSubstr("worker (PID 2) was killed by SIGSEGV.\n"));
  EXPECT_THAT(report, Not(HasSubstr("SIGTERM")));
}

TEST(TextReport, CrashesAtDifferentPlacesAreDifferent) {
  const auto killed_in = [](pid_t pid, const std::string& function) {
    cow::ProcessCopies child = child_of(1, pid, "worker", 8, 0);
    child.signal = SIGSEGV;
    cow::FailedAccess failed;
    failed.address = static_cast<std::uint64_t>(pid) << 12U;
    failed.reason = "not mapped";
    cow::Frame frame;
    frame.function = function;
    failed.frames = {frame};
    child.sampled.emplace().failures = {failed};
    return child;
  };
  const std::string longest(500, 'x');
  const std::string report =
      text_report(measurement_with({root_of("server"), killed_in(2, "first"), killed_in(3, "other"),
                                    killed_in(4, "other"), killed_in(5, longest)}));
  EXPECT_THAT(report, HasSubstr("worker (PID 2) was killed by SIGSEGV at 0x2000, in first:\n"));
  EXPECT_THAT(report, HasSubstr("2 worker processes were killed by SIGSEGV, the first at 0x3000, "
                                "in other:\n"));
  EXPECT_THAT(report, HasSubstr(longest.substr(0, 70)));
  EXPECT_THAT(report, Not(HasSubstr(longest.substr(0, 90))));
}

TEST(TextReport, AnAccessThatWasHandledIsNoCause) {
  cow::ProcessCopies killed = child_of(1, 2, "worker", 8, 0);
  killed.signal = SIGSEGV;
  cow::FailedAccess failed;
  failed.address = 0x1000;
  failed.reason = "read-only";
  failed.handled = true;
  killed.sampled.emplace().failures = {failed};
  EXPECT_THAT(report_of({root_of("server"), killed}),
              StartsWith("worker (PID 2) was killed by SIGSEGV. Before, it handled a failed access "
                         "at"));
  failed.handled = false;
  killed.sampled->failures.insert(killed.sampled->failures.begin(), failed);
  EXPECT_THAT(report_of({root_of("server"), killed}),
              StartsWith("worker (PID 2) was killed by SIGSEGV at 0x1000, in ??:"));
}

TEST(TextReport, MemoryOfAnotherOriginThanTheForkIsNamed) {
  cow::Measurement measurement = pool(2);
  measurement.memory = {300ULL << 20U, 402ULL << 20U, 0, 3, 0};
  EXPECT_THAT(text_report(measurement), Not(HasSubstr("of their own")));
  for (cow::ProcessCopies& process : measurement.processes)
    process.memory = {13ULL << 20U, 200ULL << 20U, 0};
  EXPECT_THAT(
      text_report(measurement),
      HasSubstr("2 forked processes each held up to 200.0 MiB of their own: 76.0 copied, 124.0"));
}

TEST(TextReport, WhatChildrenHoldIsTheirsAlone) {
  std::vector<cow::ProcessCopies> processes = {root_of("server")};
  for (int i = 0; i < 10; ++i) {
    processes.push_back(child_of(1, 2 + i, "worker", 100, 20));
    set_new(processes.back(), i == 0 ? 120 : 0);
  }
  EXPECT_THAT(
      report_of(processes),
      HasSubstr(" 1 forked process held up to 140.0 MiB of its own: 20.0 copied, 120.0 new. "));
  set_new(processes.back(), 60);
  EXPECT_THAT(report_of(processes), HasSubstr(" 2 forked processes held up to 220.0 MiB of their "
                                              "own: 40.0 copied, 180.0 new. "));
  processes.front().alive = processes.back().alive = true;
  EXPECT_THAT(report_of(processes), HasSubstr(" 2 forked processes held up to 220.0 MiB of "));
  processes[1].alive = true;
  EXPECT_THAT(report_of(processes), HasSubstr(" 2 forked processes hold 220.0 MiB of "));
}

TEST(TextReport, NewMemoryThatIsNotKnownIsNotThatOfOthers) {
  std::vector<cow::ProcessCopies> processes = {root_of("server")};
  for (int i = 0; i < 6; ++i) {
    processes.push_back(child_of(1, 2 + i, "worker", 100, 20));
    set_new(processes.back(), 60);
    if (i > 1) processes.back().most_risen_bytes.reset();
  }
  EXPECT_THAT(report_of(processes),
              AllOf(HasSubstr("    6 x worker  "), HasSubstr("  20.0 MiB each  2 x 60.0 MiB  "),
                    HasSubstr("MiB of their own: 20.0 copied, 60.0 new.     "
                              "What is new in 4 others is not known. ")));
  for (int i = 0; i < 6; ++i) {
    processes.push_back(child_of(1, 12 + i, "other" + std::to_string(i), 100, 10));
    set_new(processes.back(), 5);
  }
  EXPECT_THAT(report_of(processes), HasSubstr("  20.0 MiB      10.0 MiB "));
  processes.back().most_risen_bytes.reset();
  EXPECT_THAT(report_of(processes), HasSubstr("  20.0 MiB             - "));
}

// Workers that each have 60 MiB of new memory.
cow::Measurement grown(int workers, const std::vector<cow::NewCause>& causes) {
  std::vector<cow::ProcessCopies> processes = {root_of("server")};
  for (int i = 0; i < workers; ++i) {
    processes.push_back(child_of(1, 2 + i, "worker", 100, 2));
    processes.back().zero_filled_pages = 60 * kPagesPerMiB;
    processes.back().memory = {40ULL << 20U, 62ULL << 20U, 1, 60 * kPagesPerMiB};
  }
  cow::Measurement measurement = measurement_with(processes);
  measurement.new_memory.emplace().causes = causes;
  return measurement;
}

TEST(TextReport, WhereMostIsNewItsCausesComeFirst) {
  EXPECT_THAT(
      text_report(grown(2, {{"received", 3, 300}, {"own data", 1, 100}})),
      AllOf(HasSubstr("2 forked processes each held up to 62.0 MiB of their own: 2.0 copied, 60.0 "
                      "new;\n    they gave back 58.0 MiB of what they got.\n"),
            HasSubstr("100.0 MiB  2.0 MiB each  60.0 MiB   40% ####......\n"),
            HasSubstr("\n\n  NEW        90.0 MiB  75%  received\n"
                      "             30.0 MiB  25%  own data\n"),
            HasSubstr("  TRY    send references: load what is sent before the fork")));
}

TEST(TextReport, NoLineMadeTheMemoryThatNoWriteFaultMade) {
  std::vector<cow::ProcessCopies> processes = {root_of("server")};
  for (const pid_t pid : {2, 3, 4}) {
    processes.push_back(child_of(1, pid, "worker", 20, 0));
    processes.back().zero_filled_pages = 10 * kPagesPerMiB;
    processes.back().memory = {20ULL << 20U, 40ULL << 20U, 1, 10 * kPagesPerMiB};
  }
  cow::Measurement measurement = measurement_with(processes);
  measurement.new_memory.emplace();
  measurement.new_memory->causes = {{"own data", 120, 30 * kPagesPerMiB}};
  const cow::Frame line{"line_a", "causes.cc", 15, "causes", 0, false};
  measurement.new_memory->sites = {{{line}, {line}, 120, 30 * kPagesPerMiB, false}};
  const std::string report = text_report(measurement);
  EXPECT_THAT(
      report,
      HasSubstr("  NEW        90.0 MiB  75%  no write fault (mlock, MAP_POPULATE, O_DIRECT)\n"
                "             30.0 MiB  25%  own data\n"
                "  CODE       30.0 MiB  25%  line_a causes.cc:15\n"));
  expect_fits_on_a_screen(report);

  measurement.lost_events = 1;  // a lost event may be a fault
  EXPECT_THAT(text_report(measurement), HasSubstr("  NEW       120.0 MiB 100%  own data\n"));
  measurement.lost_events = 0;
  for (cow::ProcessCopies& process : measurement.processes)
    if (process.memory)  // the counts may be off by a 13th
      process.zero_filled_pages = process.memory->touched_pages = 37 * kPagesPerMiB;
  EXPECT_THAT(text_report(measurement), HasSubstr("  NEW       120.0 MiB 100%  own data\n"));
}

TEST(TextReport, ImportsAreAddedUpUnlessOneIsMost) {
  std::vector<cow::NewCause> causes;
  for (int i = 0; i < 10; ++i) causes.push_back({"import of mod" + std::to_string(i), 9, 24});
  EXPECT_THAT(text_report(grown(4, causes)),
              HasSubstr("  TRY    import mod0, mod1 and 8 more before the fork "
                        "(saves at most 180 MiB)\n  MORE"));
  causes.push_back({"import of large", 99, 100});
  EXPECT_THAT(text_report(grown(4, causes)),
              HasSubstr("import large, mod0 and 9 more before the fork (saves"));
  causes.back().estimated_copies = 2400;
  EXPECT_THAT(text_report(grown(4, causes)), AllOf(HasSubstr("import large before the fork (saves"),
                                                   Not(HasSubstr("mod0 before"))));
  EXPECT_THAT(text_report(grown(4, {{"own data", 9, 120}, {"import of large", 9, 10}})),
              Not(HasSubstr("import large")));
  causes.back().estimated_copies = 24;
  for (cow::NewCause& each : causes) each.name = "import at " + each.name;
  EXPECT_THAT(text_report(grown(4, causes)),
              HasSubstr("import before the fork what is imported now at CODE's lines (saves"));
}

TEST(TextReport, WhatFewChildrenHaveIsSavedByFew) {
  const auto report_of_halves = [](const char* cause, std::uint64_t most) {
    return text_report(grown(4, {{cause, 9, 200, most}, {"own data", 9, 200, 50}}));
  };
  const char* import = "import of provider";
  EXPECT_THAT(report_of_halves(import, 100),
              HasSubstr("provider before the fork (saves at most 60"));
  EXPECT_THAT(report_of_halves(import, 50),
              HasSubstr("provider before the fork (saves at most 90"));
  EXPECT_THAT(report_of_halves(import, 0), HasSubstr("provider before the fork (saves at most 90"));
  EXPECT_THAT(report_of_halves(import, 200), Not(HasSubstr("provider before")));
  EXPECT_THAT(report_of_halves("received", 100), HasSubstr("MiB to each of 2) (saves at most 120"));
}

TEST(TextReport, WhatALastSharerKeepsWasShared) {
  cow::ProcessCopies last = child_of(1, 2, "worker", 100, 0);
  last.memory = {0, 101ULL << 20U, 0};
  cow::Measurement measurement = measurement_with({root_of("server"), last});
  measurement.memory = {0, 101ULL << 20U, 0, 1, 0};
  EXPECT_THAT(text_report(measurement), Not(HasSubstr("of its own")));
}

TEST(TextReport, AFirstWriteToAFileCopiesNothingThatWasShared) {
  cow::ProcessCopies child = child_of(1, 2, "worker", 100, 0);
  child.copied_file_pages = 50 * kPagesPerMiB;
  child.copied_shared_file_pages = 0;
  EXPECT_THAT(report_of({root_of("server"), child}),
              AllOf(StartsWith("The sharing holds: a child shares up to 100.0 MiB, of which 0.0"),
                    HasSubstr("Not counted here: 50.0 MiB of first writes to private pages"),
                    HasSubstr("100% ##########")));
  child.copied_shared_file_pages = 40 * kPagesPerMiB;
  EXPECT_THAT(report_of({root_of("server"), child}),
              AllOf(StartsWith("worker copied 40.0 of 100.0 MiB shared (40%)."),
                    HasSubstr("Not counted here: 10.0 MiB of first writes to private pages")));
}

TEST(TextReport, CopiesThatAreNotKnownAreApart) {
  cow::ProcessCopies unknown = child_of(1, 4, "kid", 100, 0);
  unknown.copied_anon_pages.reset();
  const std::string report = report_of(
      {root_of("server"), child_of(1, 2, "kid", 100, 20), child_of(1, 3, "kid", 100, 20), unknown});
  EXPECT_THAT(
      report,
      AllOf(StartsWith("2 kid processes each copied 20.0 of 100.0 MiB shared (20%): 40.0 "
                       "MiB in all, and "),
            HasSubstr("what is not known (-)."),
            HasSubstr("100.0 MiB  20.0 MiB each    -   80% ########..  "),
            HasSubstr("    kid                           100.0 MiB              -    -  -")));
}

TEST(TextReport, WhatRunsInItsParentsMemoryIsNotInTheRowOfAFork) {
  cow::ProcessCopies vforked = child_of(2, 3, "kid", 0, 0);
  vforked.shared_at_fork_bytes.reset();
  vforked.shares_memory = true;
  EXPECT_THAT(
      report_of({root_of("server"), child_of(1, 2, "kid", 100, 20), vforked}),
      AllOf(StartsWith("kid copied 20.0 of 100.0 MiB shared (20%)."),
            HasSubstr("    kid                                        -   0.0 MiB    -  -")));
}

TEST(TextReport, RelocationsAreCausesOfFirstWritesToFiles) {
  cow::ProcessCopies child = child_of(1, 2, "worker", 100, 32);
  child.copied_file_pages = 32 * kPagesPerMiB;
  child.copied_shared_file_pages = 0;
  child.patterns = {{std::string(cow::kRelocation), 0.48, 48, ""}, {"own code", 0.52, 52, ""}};
  EXPECT_THAT(report_of({root_of("server"), child}),
              AllOf(HasSubstr("WHY        32.0 MiB 100%  own code"), Not(HasSubstr("relocation"))));
}

TEST(TextReport, AGroupThatSharesUnequallyHasARange) {
  const std::string report =
      report_of({root_of("server"), child_of(1, 2, "kid", 25, 20), child_of(1, 3, "kid", 100, 20)});
  EXPECT_THAT(report, AllOf(StartsWith("2 kid processes each copied 20.0 of 25 to 100 MiB shared "
                                       "(20% to 80%): "),
                            HasSubstr("2 x kid                   25 to 100 MiB  20.0 MiB each")));
}

TEST(TextReport, CopiesFromAParentStayThoseWhenTheProcessForks) {
  const cow::ProcessCopies worker = child_of(1, 2, "worker", 100, 50);
  cow::ProcessCopies helper = child_of(2, 3, "helper", 160, 0);
  helper.parent_copied_pages = 0;
  const std::string report = report_of({root_of("server"), worker, helper});
  EXPECT_THAT(report, StartsWith("worker copied 50.0 of 100.0 MiB shared (50%)."));
  EXPECT_THAT(report, HasSubstr("100.0 MiB  50.0 MiB    -   50% #####....."));
}

TEST(TextReport, CopiesBeforeAnExecAreNotSharedWithLaterChildren) {
  cow::ProcessCopies worker = child_of(1, 2, "worker", 100, 60);
  worker.execs = 1;
  worker.copied_pages_before_exec = 60 * kPagesPerMiB;
  cow::ProcessCopies helper = child_of(2, 3, "helper", 40, 0);
  helper.parent_copied_pages = 0;
  EXPECT_THAT(report_of({root_of("server"), worker, helper}),
              AllOf(StartsWith("worker copied 60.0 MiB before it ran that program."),
                    HasSubstr("60.0 MiB    -  then ran it")));
  worker.copied_anon_pages = 80 * kPagesPerMiB;
  helper.parent_copied_pages = 20 * kPagesPerMiB;
  EXPECT_THAT(report_of({root_of("server"), worker, helper}),
              StartsWith("worker copied 80.0 MiB, shared with its parent or with children."));
}

TEST(TextReport, WhatIsStillSharedIsNotGuessed) {
  const cow::ProcessCopies worker = child_of(1, 2, "worker", 100, 50);
  cow::ProcessCopies helper = child_of(2, 3, "helper", 150, 0);
  helper.parent_copied_pages = 50 * kPagesPerMiB;
  const std::string report = report_of({root_of("server"), worker, helper});
  EXPECT_THAT(report, StartsWith("worker copied 50.0 MiB of the 150.0 MiB shared with its child."));
  EXPECT_THAT(report, Not(HasSubstr("%  #"))) << "either may share with the server what it lost";
  EXPECT_THAT(report, Not(HasSubstr("###")));
  // Of what the worker has from no parent, its child shares what it has not copied.
  cow::ProcessCopies small = child_of(1, 2, "worker", 0, 50);
  helper.parent_copied_pages = 30 * kPagesPerMiB;
  EXPECT_THAT(report_of({root_of("server"), small, helper}), HasSubstr(" 80% ########.."));
}

TEST(TextReport, WhatRunsInItsParentsMemoryRunsNoProgram) {
  cow::ProcessCopies vforked = child_of(1, 2, "kid", 0, 0);
  vforked.shared_at_fork_bytes.reset();
  vforked.shares_memory = true;
  EXPECT_THAT(report_of({root_of("server"), vforked}),
              StartsWith("No process has a copy of its parent's memory: those that were started "
                         "ran in it"));
  vforked.copied_anon_pages.reset();
  EXPECT_THAT(report_of({root_of("server"), vforked}),
              HasSubstr("kid                                         -        -    -  -"));
}

TEST(TextReport, WhatACommandLeavesBehindIsNamed) {
  cow::ProcessCopies daemon = child_of(1, 2, "daemon", 89, 0);
  daemon.alive = true;
  const std::string report = report_of({root_of("sh"), daemon});
  EXPECT_THAT(report,
              AllOf(StartsWith("So far, the sharing holds"), HasSubstr("1 process still runs")));
}

TEST(TextReport, OfOlderWorkersTheVerdictIsSinceCowtopCame) {
  cow::ProcessCopies worker = child_of(1, 2, "worker", 89, 0);
  worker.shared_at_fork_bytes.reset();
  worker.memory = {89ULL << 20U, 0, 0};
  EXPECT_THAT(report_of({root_of("server"), worker}),
              AllOf(StartsWith("Since cowtop came, the sharing holds"),
                    HasSubstr("Not counted: what the older child")));
}

TEST(TextReport, WhatIsCopiedBeforeAnExecCounts) {
  cow::ProcessCopies child = child_of(1, 2, "sleep", 89, 30);
  child.execs = 1;
  child.copied_pages_before_exec = 30 * kPagesPerMiB;
  EXPECT_THAT(report_of({root_of("sh"), child}),
              AllOf(StartsWith("sleep copied 30.0 MiB before it ran that program."),
                    HasSubstr("30.0 MiB    -  then ran it")));
}

TEST(TextReport, WhatRanBeforeSharedWhatItShares) {
  cow::Measurement measurement = pool(2);
  for (cow::ProcessCopies& process : measurement.processes) {
    process.shared_at_fork_bytes.reset();
    process.memory = {24ULL << 20U, 0, 0};
  }
  EXPECT_THAT(text_report(measurement),
              AllOf(HasSubstr("2 worker processes each copied 76.0 of 100.0 MiB shared (76%)"),
                    HasSubstr("Not counted: what 2 older processes")));
  for (cow::ProcessCopies& process : measurement.processes) process.not_measured = "because";
  EXPECT_THAT(text_report(measurement),
              AllOf(HasSubstr("each copied 76.0 of 100.0 MiB shared"), Not(HasSubstr("older"))));

  cow::ProcessCopies save = child_of(1, 2, "redis-server", 0, 0);
  save.shared_at_fork_bytes.reset();
  save.memory = {200ULL << 20U, 0, 0};
  save.parent_copied_pages = 90 * kPagesPerMiB;
  measurement = measurement_with({root_of("redis-server", 90), save});
  measurement.duration_s = 9;
  measurement.taken_ns = 40'000'000'000;
  const std::string report = text_report(measurement);
  EXPECT_THAT(report, HasSubstr("  FORKS  child 2, watched for the last 9.0 s: its parent copied "
                                "90.0 of"));
  EXPECT_THAT(report, HasSubstr(" 55% ######....")) << "less what its parent copied";
}

TEST(TextReport, MemoryIsThatOfAll) {
  cow::Measurement measurement = pool(4);
  measurement.memory = {300ULL << 20U, 402ULL << 20U, 12ULL << 20U, 5, 0};
  EXPECT_THAT(text_report(measurement),
              HasSubstr("The processes held up to 402.0 MiB at once (PSS), page tables 12.0."));
  measurement.memory->most_peak_bytes = 600ULL << 20U;
  EXPECT_THAT(text_report(measurement),
              HasSubstr("The processes held 402.0 to 600.0 MiB at once (PSS; they ended unread)"));
  measurement.exact = false;
  EXPECT_THAT(text_report(measurement),
              HasSubstr("The processes held at least 402.0 MiB at once (PSS; some ended unread)"));
  measurement.exact = true;
  cow::Measurement ended = measurement;
  for (cow::ProcessCopies& process : ended.processes)
    process.patterns = {{"program exit", 0.75, 75, ""}};  // 228 MiB
  EXPECT_THAT(text_report(ended), HasSubstr("The processes held up to 402.0 MiB at once (PSS)"));
  measurement.processes[0].alive = true;
  EXPECT_THAT(text_report(measurement),
              HasSubstr("\n1 of 5 processes holds 300.0 MiB (PSS; up to 402.0 to 600.0, some ended "
                        "unread),\n    page tables 12.0.\n"));
  measurement.memory->most_peak_bytes = 0;
  EXPECT_THAT(text_report(measurement),
              HasSubstr("1 of 5 processes holds 300.0 MiB (PSS; up to 402.0), page tables 12.0."));
  for (cow::ProcessCopies& process : measurement.processes) process.alive = true;
  EXPECT_THAT(text_report(measurement),
              HasSubstr("All 5 processes hold 300.0 MiB (PSS; up to 402.0), page tables 12.0."));
}

TEST(TextReport, SaysWhatAndWhyAndWhatToDo) {
  cow::Measurement measurement =
      pool(4, {{"reference count", 0.99, 99, ""}, {"stack", 0.01, 1, ""}});
  measurement.processes[1].arenas = {{"index", 64 << 20, 0}};
  cow::SampledCopies& sampled = measurement.sampled.emplace();
  const cow::Frame frame{"list_subscript", "", 0, "/usr/bin/python3.11", 0, false};
  sampled.sites = {{{frame}, {frame}, 99, 76 * kPagesPerMiB * 4, false}};
  sampled.mappings = {{"[heap]", 99, 76 * kPagesPerMiB * 4}};
  const std::string report = text_report(measurement);
  for (const char* text :
       {"WHAT      304.0 MiB 100%  [heap]", "0.0 MiB   0%  arena index (64.0 MiB, frozen)",
        "99%  reference count: reads write to the object's header",
        "CODE      304.0 MiB 100%  list_subscript", "gc.freeze() does not",
        "(saves at most 301 MiB)"}) {
    EXPECT_THAT(report, HasSubstr(text));
  }
  expect_fits_on_a_screen(report);
}

TEST(TextReport, ALongNameKeepsItsLine) {
  cow::Measurement measurement = pool(1);
  const std::string arguments = "(std::unordered_map<std::string, std::vector<int>> const&)";
  const auto code_of = [&](const std::string& function, const std::string& file) {
    const cow::Frame frame{function, file, 44, "/a.out", 0, false};
    measurement.sampled.emplace().sites = {{{frame}, {frame}, 99, 76 * kPagesPerMiB, false}};
    return text_report(measurement);
  };
  EXPECT_THAT(code_of("ranked" + arguments, "before.cc"), HasSubstr("100%  ranked before.cc:44\n"));
  EXPECT_THAT(code_of("ranked" + arguments, ""), HasSubstr("100%  ranked (a.out)\n"));
  EXPECT_THAT(code_of("operator<" + arguments, "before.cc"), HasSubstr("100%  operator<(std::"));
}

// As V8 names what it compiled, in its perf map, and as Rust names methods of a trait.
TEST(TextReport, ALongNameKeepsItsBeginning) {
  cow::Measurement measurement = pool(1);
  const auto code_of = [&](const std::string& function) {
    const cow::Frame frame{function, "", 0, "/tmp/perf-7.map", 0, false};
    measurement.sampled.emplace().sites = {{{frame}, {frame}, 99, 76 * kPagesPerMiB, false}};
    return text_report(measurement);
  };
  EXPECT_THAT(code_of("JS:*<anonymous>(request) file:///srv/node_modules/server.mjs:12:5"),
              HasSubstr("100%  JS:*<anonymous>(request) file:///srv/node_"));
  EXPECT_THAT(code_of("LazyCompile:total"), HasSubstr("100%  LazyCompile:total (perf map)"));
  EXPECT_THAT(code_of("<alloc::vec::Vec<T> as core::iter::Extend<T>>::extend(std::string const&)"),
              HasSubstr("100%  <alloc::vec::Vec as core::iter::Extend>::extend"));
}

TEST(TextReport, WhereMostOfCodeHasNoNamesItSaysWhatWouldGiveThem) {
  cow::Measurement measurement =
      pool(4, {{"garbage collector", 0.5, 50, ""}, {"reference count", 0.5, 50, ""}});
  const auto report_of_unnamed = [&](std::uint64_t percent) {
    const cow::Frame unnamed{"", "", 0, "/usr/lib/libruby-3.3.so.3.3", 5, false};
    const cow::Frame named{"rb_gc", "", 0, "/usr/lib/libruby-3.3.so.3.3", 5, false};
    constexpr std::uint64_t kPagesPerCent = 76 * kPagesPerMiB * 4 / 100;
    measurement.sampled.emplace().sites = {
        {{unnamed}, {unnamed}, 99, percent * kPagesPerCent, false},
        {{named}, {named}, 99, (100 - percent) * kPagesPerCent, false}};
    return text_report(measurement);
  };
  EXPECT_THAT(report_of_unnamed(60),
              HasSubstr("install the debug symbols of libruby-3.3.so.3.3, to see its functions\n"));
  EXPECT_THAT(report_of_unnamed(40), Not(HasSubstr("install the debug symbols")));
}

// A report of workers with one cause, whose copies code of `module` made.
std::string report_with(const std::string& cause, const std::string& module,
                        cow::Measurement measurement = pool(4)) {
  for (cow::ProcessCopies& process : measurement.processes) process.patterns = {{cause, 1, 99, ""}};
  const cow::Frame frame{"work", "", 0, module, 5, false};
  measurement.sampled.emplace().sites = {{{frame}, {frame}, 99, 76 * kPagesPerMiB * 4, false}};
  return text_report(measurement);
}

TEST(TextReport, EachCauseHasARemedyAndAnEntryOfTheGlossary) {
  for (const Cause& cause : causes()) {
    EXPECT_NE(find_term(cause.name), nullptr) << cause.name;
    // One is not among the causes of the report's figures; the other's remedy needs nameless code.
    if (cause.name == cow::kProgramExit || cause.name == cow::kUnknown) continue;
    // A line of WHY has room for so much.
    EXPECT_LE(cause.name.size() + 2 + cause.in_words.size(), 52U) << cause.name;
    EXPECT_THAT(report_with(std::string(cause.name), "/srv/server"), HasSubstr("\n  TRY "))
        << cause.name;
  }
}

TEST(TextReport, EachCauseOfNewMemoryHasAnEntryOfTheGlossary) {
  for (const std::string_view cause : cow::kNewMemoryCauses)
    EXPECT_NE(find_term(cause), nullptr) << cause;
  EXPECT_EQ(find_term("import of newsletter"), find_term("import"));
  EXPECT_EQ(find_term("import at shop.py:7"), find_term("import"));
  EXPECT_EQ(find_term("imports"), nullptr);
}

TEST(TextReport, TheRemedyIsThatOfTheLanguage) {
  const std::string collector = "garbage collector";
  const std::string free_list = "allocator free list";
  for (const std::string& cause : {collector, free_list}) {
    EXPECT_THAT(report_with(cause, "/lib/libruby-3.1.so.3.1"), HasSubstr("call Process.warmup"));
    EXPECT_THAT(report_with(cause, "/usr/lib/R/lib/libR.so"), HasSubstr("call gc() twice"));
  }
  EXPECT_THAT(report_with(collector, "/usr/bin/php8.2"),
              HasSubstr("call gc_disable() in children"));
  EXPECT_THAT(report_with(free_list, "/srv/server"), HasSubstr("free nothing in the child"));
  const std::string count = "reference count";
  EXPECT_THAT(report_with(count, "/usr/lib/libpython3.13.so.1.0"),
              HasSubstr("TRY    call cowshed.freeze() before the fork"));
  EXPECT_THAT(report_with(count, "/usr/bin/python3.9"),
              HasSubstr("TRY    hold the data in an array"));
  EXPECT_THAT(report_with(count, "/usr/bin/server"),
              HasSubstr("\n         shared_ptr, and move what is written out of it (saves"));
}

TEST(TextReport, WhatTheServerHasFrozenIsSaid) {
  cow::Measurement measurement = pool(4);
  measurement.processes[0].transfers = {
      {{"freeze", "cowshed.freeze()", "Python objects", "inherited", 2, 1000, 89 << 20}}};
  const auto report = [&] {
    return report_with("reference count", "/usr/bin/python3.13", measurement);
  };
  EXPECT_THAT(report(), AllOf(HasSubstr("Frozen by cowshed.freeze(): 1000 Python objects, 89.0 "
                                        "MiB."),
                              HasSubstr("TRY    call cowshed.freeze() once more")));
  measurement.processes[0].transfers->push_back(
      {"freeze", "cowshed.freeze()", "frozen in part", "inherited", 1, 5, 0});
  EXPECT_THAT(report(), AllOf(HasSubstr("Frozen by cowshed.freeze(): 1000 Python objects, 89.0 "
                                        "MiB."),
                              HasSubstr("TRY    print the result of cowshed.freeze()")));
  std::swap(measurement.processes[0].transfers, measurement.processes[1].transfers);
  EXPECT_THAT(report(), HasSubstr("TRY    call cowshed.freeze() before the fork"))
      << "a worker froze";
}

TEST(TextReport, ADatabasesRemedyIsForDatabases) {
  cow::Measurement measurement = measurement_with(
      {root_of("server", 60), child_of(1, 2, "server", 89, 0), child_of(1, 3, "server", 89, 0)});
  measurement.processes[0].patterns = {{"own writes", 1, 99, ""}};
  EXPECT_THAT(text_report(measurement), AllOf(HasSubstr("TRY    write less while a child lives"),
                                              Not(HasSubstr("move what is written"))));
  cow::Measurement wrapped = measurement;
  for (cow::ProcessCopies& process : wrapped.processes) process.pid += 10, process.ppid += 10;
  wrapped.processes[0].ppid = 1;
  wrapped.processes[0].role = cow::Role::child;
  wrapped.processes.insert(wrapped.processes.begin(), root_of("sh"));
  EXPECT_THAT(text_report(wrapped), HasSubstr("TRY    write less while a child lives"));
  for (cow::ProcessCopies& process : measurement.processes) process.comm = "python3";
  EXPECT_THAT(text_report(measurement),
              AllOf(HasSubstr("TRY    move what is written"), Not(HasSubstr("write less"))));
}

TEST(TextReport, ForksThatOnlyRunProgramsNeedNoCopies) {
  cow::ProcessCopies ran = child_of(1, 2, "true", 64, 90);
  ran.processes = 400;
  ran.execs = 400;
  ran.copied_pages_before_exec = 78 * kPagesPerMiB;  // 200 KiB each
  ran.patterns = {{"unknown", 1, 99, ""}};
  std::string report = report_of({root_of("server"), ran});
  EXPECT_THAT(report,
              HasSubstr("Not counted here: 78.0 MiB that 400 processes copied before they"));
  EXPECT_THAT(report, HasSubstr("TRY    start programs by posix_spawn() or vfork(), which copy "
                                "nothing (saves          at most 78"));
  EXPECT_THAT(report, Not(HasSubstr("WHY")));
  // The parent's copies of what it shared with such children, too.
  ran.copied_pages_before_exec = 0;
  report = report_of({root_of("server", 60), ran});
  EXPECT_THAT(report, AllOf(StartsWith("server copied 60.0 MiB while children had not yet run"),
                            HasSubstr("TRY    start programs by posix_spawn()")));
  EXPECT_THAT(report_of({root_of("make", 60), ran}), Not(HasSubstr("posix_spawn")))
      << "a shell starts programs as it does";
}

TEST(TextReport, SubshellsAreOutOfTheRowOfWorkers) {
  const std::string report =
      report_of({root_of("R"), child_of(1, 2, "R", 0, 0), child_of(1, 3, "R", 184, 42),
                 child_of(1, 4, "R", 184, 42)});
  EXPECT_THAT(report, AllOf(StartsWith("2 R processes each copied 42.0 of 184.0 MiB shared (23%)"),
                            HasSubstr("    2 x R "), HasSubstr("    R   ")));
}

TEST(TextReport, SubshellsFromBeforeAnExecAreNoForksOfTheProgram) {
  cow::ProcessCopies root = root_of("python3", 20);
  root.execs = 2;
  root.memory = {0, 90ULL << 20U, 0};
  cow::ProcessCopies ran = child_of(1, 3, "true", 90, 1);
  ran.execs = 1;
  ran.copied_pages_before_exec = 0;
  EXPECT_THAT(report_of({root, child_of(1, 2, "bash", 0, 0), ran}),
              StartsWith("python3 copied 20.0 MiB. "));
}

TEST(TextReport, LittleByEachIsSaidToBeLittle) {
  std::vector<cow::ProcessCopies> processes = {root_of("postgres")};
  for (int i = 0; i < 20; ++i) {
    processes.push_back(child_of(1, 2 + i, "postgres", 2, 0));
    processes.back().copied_anon_pages = kPagesPerMiB * 2 / 5;
  }
  cow::Measurement measurement = measurement_with(processes);
  measurement.memory = {150ULL << 20U, 150ULL << 20U, 0, 21, 0};
  EXPECT_THAT(text_report(measurement),
              StartsWith("The sharing holds: 20 children share up to 2.0 MiB each, of which 8.0"));
  measurement.memory->peak_pss_bytes = 30ULL << 20U;
  EXPECT_THAT(text_report(measurement), StartsWith("20 postgres processes each copied 0.4 of 2.0"));
}

TEST(TextReport, APercentageIsOfTheFiguresBesideIt) {
  cow::ProcessCopies child = child_of(1, 2, "worker", 4, 3);
  child.copied_file_pages = kPagesPerMiB / 2;  // of files, too little to name apart
  child.copied_shared_file_pages = 0;
  EXPECT_THAT(report_of({root_of("server"), child}),
              StartsWith("worker copied 3.0 of 4.0 MiB shared (75%)"));
}

TEST(TextReport, WhatAChildGaveBackIsNotShared) {
  cow::ProcessCopies child = child_of(1, 2, "worker", 100, 46);
  child.memory = {11ULL << 20U, 46ULL << 20U, 0};
  EXPECT_THAT(report_of({root_of("server"), child}), HasSubstr(" 11% #........."));
  child.memory = {0, 100ULL << 20U, 0};  // the last to have what was shared
  EXPECT_THAT(report_of({root_of("server"), child}), HasSubstr(" 54% #####....."));
}

TEST(TextReport, WhatAnOlderWorkerHasOfItsOwnIsSaid) {
  cow::Measurement measurement = pool(2);
  for (cow::ProcessCopies& process : measurement.processes) {
    process.shared_at_fork_bytes.reset();
    process.memory = {24ULL << 20U, 200ULL << 20U, 0};
  }
  EXPECT_THAT(text_report(measurement),
              HasSubstr("They have 248.0 MiB of their own from then:\n    cowtop cannot tell"));
}

TEST(TextReport, AStrayWritesLineIsTheInnermost) {
  cow::ProcessCopies killed = child_of(1, 2, "worker", 8, 0);
  killed.signal = SIGSEGV;
  cow::FailedAccess failed;
  failed.address = 0x2000;
  failed.reason = "read-only";
  const cow::Frame store{"set", "/usr/include/table.hpp", 7, "/srv/server", 5, true};
  const cow::Frame own{"serve", "/src/server.cc", 44, "/srv/server", 5, false};
  failed.frames = {store, own};
  killed.sampled.emplace().failures = {failed};
  EXPECT_THAT(report_of({root_of("server"), killed}),
              StartsWith("worker (PID 2) was killed by SIGSEGV at 0x2000, in set table.hpp:7 "
                         "(inlined),     called from serve server.cc:44:"));
}

constexpr const char* kEscapes = "x\x1b]0;title\x07\nFAKE \xff\xf4\x90\x80\x80\xe2\x80\xae";
constexpr const char* kHarmless = "x?]0;title??FAKE ??????";

cow::CodeSite python_site(const std::string& function, int line, std::uint64_t mib) {
  cow::Frame frame{function, "/app/pool.py", line, "/usr/bin/python3.11", 0, false};
  frame.is_python = true;
  return {{frame}, {frame}, mib, mib * kPagesPerMiB, false};
}

cow::Measurement python_pool(int workers) {
  cow::Measurement measurement = pool(workers);
  const auto all = static_cast<std::uint64_t>(workers) * 76;
  cow::SampledCopies& sampled = measurement.sampled.emplace();
  sampled.samples = 1000;
  sampled.sites = {python_site("total", 4, all / 2), python_site("load", 9, all / 4),
                   python_site("count", 14, all / 5), python_site("last", 20, all / 20)};
  sampled.types = {{"str", 600, all / 2 * kPagesPerMiB}, {"list", 300, all / 4 * kPagesPerMiB}};
  return measurement;
}

TEST(TextReport, OfPythonNamesLinesAndTypes) {
  const std::string report = text_report(python_pool(4));
  EXPECT_THAT(report, HasSubstr("  OBJECTS   152.0 MiB  50%  str\n"
                                "             76.0 MiB  25%  list\n"
                                "  CODE      152.0 MiB  50%  total (pool.py:4)\n"
                                "             76.0 MiB  25%  load (pool.py:9)\n"
                                "             60.0 MiB  20%  count (pool.py:14)\n"));
  expect_fits_on_a_screen(report);
}

TEST(TextReport, TheStartOfAProgramIsNoCodeThatCopies) {
  cow::Measurement measurement = python_pool(4);
  const cow::Frame relocate{"_dl_relocate_object", "", 0, "/lib64/ld-linux-x86-64.so.2", 5, false};
  const cow::Frame start{"_start", "", 0, "/lib64/ld-linux-x86-64.so.2", 5, false};
  measurement.sampled->sites.push_back({{start}, {relocate, start}, 9, 4 * kPagesPerMiB, true});
  const std::string report = text_report(measurement);
  EXPECT_THAT(report, Not(HasSubstr("_start")));
  EXPECT_THAT(report, HasSubstr("CODE      152.0 MiB  51%  total (pool.py:4)"));
}

TEST(TextReport, OnAFullScreenThereAreFewerLinesAndTypes) {
  cow::Measurement measurement = python_pool(4);
  for (int i = 0; i < 40; ++i) {
    measurement.processes.push_back(child_of(1, 100 + i, "sh" + std::to_string(i), 9, 1));
    measurement.processes.push_back(child_of(1, 200 + i, "make" + std::to_string(i), 9, 0));
    measurement.processes.back().execs = 1;
  }
  measurement.sampled->mappings = {{"[heap]", 1, 30 * kPagesPerMiB},
                                   {"anonymous", 1, 30 * kPagesPerMiB}};
  measurement.processes[1].sampled = measurement.sampled;
  for (cow::ProcessCopies& process : measurement.processes)
    process.patterns = {{"reference count", 1, 60, ""}};
  const std::string report = text_report(measurement);
  EXPECT_THAT(report, HasSubstr("total (pool.py:4)"));
  EXPECT_THAT(report, HasSubstr("OBJECTS"));
  EXPECT_THAT(report, Not(HasSubstr("count (pool.py:14)")));
  expect_fits_on_a_screen(report);
}

TEST(TextReport, SaysHowManyLinesOfPythonAreNotKnown) {
  cow::Measurement measurement = python_pool(4);
  EXPECT_THAT(text_report(measurement), Not(HasSubstr("samples lack their line")));
  measurement.sampled->python_unread = 30;
  EXPECT_THAT(text_report(measurement), HasSubstr("3% of the samples lack their line: their Python "
                                                  "frames could not be read.\n"));
}

TEST(TextReport, SaysHowManySamplesWereLost) {
  cow::Measurement measurement = python_pool(4);
  measurement.sampling.emplace().lost = measurement.sampled->samples / 200;
  EXPECT_THAT(text_report(measurement), Not(HasSubstr("were lost")));
  measurement.sampling->lost = measurement.sampled->samples;
  EXPECT_THAT(text_report(measurement), HasSubstr("samples were lost, of whatever copied fastest"));
}

TEST(TextReport, ContainersAreNamedWhereThereAreSeveral) {
  cow::Measurement measurement = pool(4);
  const std::string one = "/docker/" + std::string(64, 'a');
  for (cow::ProcessCopies& process : measurement.processes) process.cgroup = one;
  EXPECT_THAT(text_report(measurement), Not(HasSubstr("[aaaaaaaaaaaa]")));
  EXPECT_THAT(text_report(measurement, {.each_process = true}),
              HasSubstr("    3 worker [aaaaaaaaaaaa] "));
  EXPECT_THAT(text_report(measurement, {.wide = true}),
              HasSubstr("container aaaaaaaaaaaa: PID 1 and 4 more\n"));
  measurement.processes[1].cgroup = "/docker/" + std::string(64, 'b');
  EXPECT_THAT(text_report(measurement), HasSubstr("  3 x worker [aaaaaaaaaaaa] "));
  EXPECT_THAT(text_report(measurement), HasSubstr("  worker [bbbbbbbbbbbb] "));
}

TEST(TextReport, NoNameSendsEscapesToTheTerminal) {
  cow::Measurement measurement = pool(2, {{"unknown", 0.6, 60, ""}, {kEscapes, 0.4, 40, kEscapes}});
  const cow::Frame nameless{"", "", 0, std::string("/tmp/") + kEscapes, 5, false};
  measurement.sampled.emplace().sites = {{{nameless}, {nameless}, 99, 2 * 76 * 256, false}};
  measurement.sampled->mappings = {{kEscapes, 99, 2 * 76 * 256}};
  measurement.processes[0].not_measured = kEscapes;
  measurement.sampled->types = {{kEscapes, 99, 76 * 256}};
  cow::CodeSite line = python_site(kEscapes, 4, 76);
  cow::Frame frame = line.frames.front();
  frame.file = kEscapes;
  line.frames = {frame};
  measurement.sampled->sites.push_back(line);
  const std::string report = text_report(measurement);
  EXPECT_THAT(report, HasSubstr(std::string("50%  ") + kHarmless)) << "of a type";
  EXPECT_THAT(report, HasSubstr(std::string(kHarmless) + " (")) << "of a line of Python";
  EXPECT_THAT(report, HasSubstr(std::string("install the debug symbols of ") + kHarmless));
  EXPECT_THAT(report, HasSubstr(std::string("40%  ") + kHarmless));
  EXPECT_THAT(report, HasSubstr(std::string("not measured: ") + kHarmless));
  EXPECT_THAT(report, Not(HasSubstr("\x1b")));
  EXPECT_THAT(report, Not(HasSubstr("\nFAKE")));
}

TEST(TextReport, AFileThatWasGivenUpIsNamed) {
  cow::Measurement measurement = pool(2);
  measurement.sampling.emplace().unread = {"/tmp/a\x1b.so: crashed", "/tmp/b: crashed", "/tmp/c"};
  EXPECT_THAT(text_report(measurement), HasSubstr("not read: /tmp/a?.so: crashed\n"
                                                  "not read: /tmp/b: crashed\n"
                                                  "not read: 1 more\n"));
}

TEST(TextReport, WhatIsCopiedAtTheEndOfAProgramIsLeftOut) {
  cow::Measurement measurement =
      pool(4, {{"program exit", 0.75, 75, ""}, {"reference count", 0.25, 25, ""}});
  const std::string report = text_report(measurement);
  EXPECT_THAT(report, StartsWith("4 worker processes each copied 19.0 of 89.0 MiB shared (21%): "
                                 "76.0 MiB in all.\n"));
  EXPECT_THAT(report,
              HasSubstr("Not counted here: some 228.0 MiB that were copied while programs ended"));
  EXPECT_THAT(report, HasSubstr("WHY        76.0 MiB 100%  reference count"));
  EXPECT_THAT(report, HasSubstr("end children by _exit()"));
}

TEST(TextReport, WhereNothingIsKnownNothingIsClaimed) {
  cow::ProcessCopies unknown = child_of(1, 2, "worker", 89, 0);
  unknown.copied_anon_pages.reset();
  cow::ProcessCopies root = root_of("server");
  root.copied_anon_pages.reset();
  EXPECT_THAT(report_of({root, unknown}), StartsWith("The copies are not known."));
}

}  // namespace
}  // namespace cowshed::cowtop
