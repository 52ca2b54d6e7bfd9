#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/analysis/comparison.h>
#include <cowshed/tools/cowtop/report/comparison_report.h>

namespace cowshed::cowtop {
namespace {

cow::ProcessCopies process(pid_t pid, pid_t ppid, const std::string& comm, std::uint64_t pages) {
  return ppid == 0 ? root_copier(pid, comm, pages) : copier(pid, comm, pages, ppid);
}

// Of the root 900, added up.
cow::ProcessCopies five_of(const std::string& comm, std::uint64_t pages) {
  cow::ProcessCopies result = process(0, 900, comm, pages);
  result.processes = 5;
  return result;
}

// Other PIDs, as in another run.
cow::Measurement run_of(pid_t pid, const std::vector<std::uint64_t>& workers) {
  cow::Measurement measurement = measurement_with({process(pid, 0, "server", 1)});
  for (const std::uint64_t pages : workers)
    measurement.processes.push_back(process(++pid, measurement.processes[0].pid, "worker", pages));
  return measurement;
}

Change change_of(const std::vector<Change>& changes, const std::string& name) {
  const auto found = std::ranges::find(changes, name, &Change::name);
  return found == changes.end() ? Change{"none", 1, 1} : *found;
}

// "NAME GROWTH" of each.
std::vector<std::string> growth_of(const std::vector<Change>& changes) {
  std::vector<std::string> growth;
  for (const Change& each : changes)
    growth.push_back(each.name + (each.growth() ? " " + std::to_string(*each.growth()) : ""));
  return growth;
}

TEST(Comparison, ProcessesAreMatchedByTheirPlaceInTheTree) {
  auto before = run_of(100, {10, 20});
  auto after = run_of(900, {10, 25, 7});
  after.processes.push_back(process(950, 902, "cat", 3));
  const Comparison comparison = compare(before, after);
  EXPECT_THAT(growth_of(comparison.processes),
              UnorderedElementsAre("server 0", "server/worker[1] 0", "server/worker[2] 5",
                                   "server/worker[3] 7", "server/worker[2]/cat[1] 3"));
  EXPECT_EQ(comparison.processes[0].name, "server/worker[3]") << "the most changed first";
  EXPECT_EQ(comparison.processes[0].before, std::nullopt) << "was not there";
  EXPECT_EQ(comparison.total.before, 31);
  EXPECT_EQ(comparison.total.after, 46);
}

// `python app.py` against `/usr/bin/python3 app.py`.
TEST(Comparison, ACommandUnderAnotherNameIsTheSameCommand) {
  const auto run_by = [](const std::string& name, std::uint64_t pages) {
    return measurement_with({process(1, 0, name, 1), process(2, 1, name, pages),
                             process(3, 1, "worker", pages), process(4, 3, name, pages)});
  };
  const auto before = run_by("python", 10);
  const auto after = run_by("python3", 12);
  const Comparison comparison = compare(before, after);
  EXPECT_THAT(growth_of(comparison.processes),
              UnorderedElementsAre("python|python3 0", "python|python3/python|python3[1] 2",
                                   "python|python3/worker[1] 2",
                                   "python|python3/worker[1]/python|python3[1] 2"));
  EXPECT_EQ(comparison.total.growth(), 6);
  auto two_roots = after;
  two_roots.processes.push_back(process(9, 0, "cron", 0));
  EXPECT_THAT(growth_of(compare(before, two_roots).processes), Contains("python3 1"))
      << "which of the two it would be is not known";
}

// Who is listed by itself are those that copied most, which may be others each time.
TEST(Comparison, WhereSomeWereAddedUpAllOfTheirKindAre) {
  auto before = run_of(100, {10, 20});
  before.processes.push_back(process(150, 102, "cat", 3));
  auto after = run_of(900, {25, 7});
  after.processes.push_back(five_of("worker", 40));
  after.processes.push_back(process(950, 902, "cat", 4));
  EXPECT_THAT(growth_of(compare(before, after).processes),
              UnorderedElementsAre("server 0", "server/worker[all] 42", "server/cat[1] 1"));
  EXPECT_THAT(growth_of(compare(after, before).processes), Contains("server/worker[all] -42"));
}

// What descended from those that were added up is listed below the next parent that is.
TEST(Comparison, WhatTheyStartedIsFoundWhereverItIsListed) {
  auto before = run_of(100, {10, 20});
  before.processes.push_back(process(150, 101, "cat", 3));
  before.processes.push_back(process(151, 102, "cat", 5));
  auto after = run_of(900, {});
  for (const char* name : {"worker", "cat"}) after.processes.push_back(five_of(name, 50));
  EXPECT_THAT(growth_of(compare(before, after).processes),
              UnorderedElementsAre("server 0", "server/worker[all] 20", "server/cat[all] 42"));
}

TEST(Comparison, ALongChainOfProcessesHasShortNames) {
  cow::Measurement before;
  for (int i = 0; i < 20000; ++i) {
    const std::string name = i == 5 ? std::string(1 << 20, 'x') : "link";
    before.processes.push_back(process(100 + i, i == 0 ? 0 : 99 + i, name, 1));
    before.processes.back().start_ns = static_cast<std::uint64_t>(i);
  }
  cow::Measurement after = before;
  after.processes.back().copied_anon_pages = 1001;
  const Comparison comparison = compare(before, after);
  std::size_t longest = 0;
  for (const Change& each : comparison.processes) longest = std::max(longest, each.name.size());
  EXPECT_LT(longest, 1000U);
  ASSERT_EQ(comparison.processes.size(), 20000U);
  EXPECT_EQ(comparison.processes[0].growth(), 1000);
  EXPECT_EQ(comparison.processes[1].growth(), 0);
}

TEST(Comparison, AProcessWhoseCopiesAreNotKnown) {
  auto before = run_of(100, {10});
  auto after = run_of(200, {10});
  after.processes[1].copied_anon_pages.reset();
  const Comparison comparison = compare(before, after);
  EXPECT_EQ(comparison.processes[0].before, 10);
  EXPECT_EQ(comparison.processes[0].after, std::nullopt);
  EXPECT_EQ(comparison.processes[0].growth(), std::nullopt);
  EXPECT_EQ(comparison.total.growth(), std::nullopt) << "of one process on one side alone";
  EXPECT_EQ(comparison.not_known_before, 0U);
  EXPECT_EQ(comparison.not_known_after, 1U);
  EXPECT_EQ(compare(after, before).processes[0].growth(), std::nullopt) << "not +10";
}

// As of the sampled backend's root.
TEST(Comparison, WhatIsKnownOfNeitherSideLeavesTheTotalKnown) {
  auto before = run_of(100, {10});
  auto after = run_of(200, {12});
  before.processes[0].copied_anon_pages.reset();
  after.processes[0].copied_anon_pages.reset();
  const Comparison comparison = compare(before, after);
  EXPECT_EQ(comparison.total.growth(), 2);
  EXPECT_EQ(comparison.not_known_before + comparison.not_known_after, 2U);
  EXPECT_THAT(comparison_table(comparison, {"a", "b"}),
              HasSubstr("1            1                         processes whose copies are not "
                        "known, in no total\n"));
}

TEST(Comparison, ASumOfWhichAPartIsNotKnownIsNotKnown) {
  auto before = run_of(100, {10, 20});
  auto after = run_of(900, {25});
  after.processes.push_back(five_of("worker", 40));
  after.processes.back().copied_anon_pages.reset();
  EXPECT_EQ(change_of(compare(before, after).processes, "server/worker[all]").after, std::nullopt);
}

TEST(Comparison, APeakThatEndedUnreadIsARange) {
  cow::Measurement before;
  before.exact = true;
  before.memory = cow::TreeMemory{.pss_bytes = 8U << 20U, .peak_pss_bytes = 8U << 20U};
  cow::Measurement after = before;
  after.memory->most_peak_bytes = 20U << 20U;
  EXPECT_THAT(comparison_table(compare(before, after), {"a", "b"}),
              HasSubstr("at its peak (PSS): 8.0 MiB, then 8.0 to 20.0 MiB\n"));
  EXPECT_THAT(comparison_table(compare({}, after), {"a", "b"}), HasSubstr("- MiB, then 8.0 to"));
  after.exact = false;
  EXPECT_THAT(comparison_table(compare(before, after), {"a", "b"}),
              HasSubstr("at its peak (PSS): 8.0 MiB, then - MiB\n"));
}

TEST(Comparison, OfOneProcessThePeakThatWasReadIsChance) {
  auto before = run_of(100, {10});
  auto after = before;
  before.processes[0].peak = {40U << 20U, 1};
  after.processes[0].peak = {50U << 20U, 1};
  EXPECT_THAT(comparison_table(compare(before, after), {"a", "b"}), Not(HasSubstr("PSS")));
}

TEST(Comparison, NewMemoryOfEachChildAndOfAll) {
  const auto grown = [](pid_t pid, const std::vector<std::uint64_t>& mib) {
    cow::Measurement measurement = run_of(pid, std::vector<std::uint64_t>(mib.size(), 0));
    for (std::size_t i = 0; i < mib.size(); ++i)
      measurement.processes[1 + i].memory = {.private_bytes = mib[i] << 20U};
    for (cow::ProcessCopies& each : measurement.processes) each.shared_at_fork_bytes = 0;
    return measurement;
  };
  const auto before = grown(100, {10, 20, 30});
  auto after = grown(900, {10, 45});
  const Comparison comparison = compare(before, after);
  EXPECT_EQ(comparison.new_bytes.before, 60U << 20U);
  EXPECT_EQ(comparison.new_bytes.after, 55U << 20U);
  EXPECT_THAT(growth_of(comparison.process_new_bytes),
              UnorderedElementsAre("server/worker[1] 0", "server/worker[2] 26214400",
                                   "server/worker[3] -31457280"));
  const std::string table = comparison_table(comparison, {"a", "b"});
  EXPECT_THAT(table, HasSubstr("new memory, MiB\n"));
  EXPECT_THAT(table,
              HasSubstr("        20.0         45.0        +25.0   +125.0%  server/worker[2]\n"));
  EXPECT_THAT(table, HasSubstr("        60.0         55.0         -5.0     -8.3%  total\n"));
  EXPECT_THAT(comparison_json(comparison, {"a", "b"}),
              HasSubstr("\"new_bytes\": {\n    \"before\": 62914560,\n    \"after\": 57671680,"));
  EXPECT_THAT(comparison_table(compare(grown(100, {}), before), {"a", "b"}),
              HasSubstr("        none         60.0        +60.0         -  total\n"));
  after.processes[2].memory.reset();
  EXPECT_THAT(comparison_table(compare(before, after), {"a", "b"}),
              HasSubstr("        60.0         10.0            -         -  total\n"));
  for (cow::ProcessCopies& each : after.processes) each.memory.reset();
  EXPECT_THAT(comparison_table(compare(before, after), {"a", "b"}),
              HasSubstr("        60.0            -            -         -  total\n"));
  EXPECT_THAT(comparison_table(compare(after, after), {"a", "b"}), Not(HasSubstr("new memory")));
  EXPECT_EQ(compare(after, after).new_bytes.growth(), std::nullopt);
}

TEST(Comparison, ObjectsAndSitesOfAllProcesses) {
  const auto before = full_measurement();
  auto after = before;
  after.processes.push_back(after.processes[1]);
  after.processes.back().pid = 77;
  after.sampled->sites[0].estimated_copies = 100;
  after.sampled->mappings.clear();
  const Comparison comparison = compare(before, after);
  ASSERT_THAT(comparison.objects, SizeIs(1));
  EXPECT_EQ(comparison.objects[0].name, "index/table (Table)");
  EXPECT_EQ(comparison.objects[0].before, 30);
  EXPECT_EQ(comparison.objects[0].after, 60);
  ASSERT_THAT(comparison.sites, SizeIs(1));
  EXPECT_EQ(comparison.sites[0].growth(), 100 - 448);
  // 7 of 10 samples are in the list: what is not in it may be some of the others.
  ASSERT_THAT(comparison.mappings, SizeIs(1));
  EXPECT_EQ(comparison.mappings[0].before, 640);
  EXPECT_EQ(comparison.mappings[0].after, std::nullopt);
  EXPECT_EQ(comparison.mappings[0].growth(), std::nullopt);
}

TEST(Comparison, WhatOneSideDoesNotHaveIsNothingWhereItsListIsWhole) {
  auto before = full_measurement();
  auto after = full_measurement();
  after.sampled->mappings[0].name = "[stack]";
  const Comparison comparison = compare(before, after);
  EXPECT_THAT(growth_of(comparison.mappings), UnorderedElementsAre("[heap] -640", "[stack] 640"));
  for (const Change& each : comparison.mappings)
    EXPECT_TRUE(each.before && each.after) << each.name;
}

// Some of the unknown code may be the line, if there is more of it without the line.
TEST(Comparison, ALineThatOneSideLacksIsZeroBesideAsMuchUnknownCode) {
  auto before = run_of(100, {6000});
  auto after = run_of(100, {1000});
  const cow::Frame line{"fill()", "fill.cc", 12, "", 0, false};
  const auto sample = [](cow::Measurement& measurement, cow::Frames frames, std::uint64_t copies) {
    if (!measurement.sampled) measurement.sampled.emplace();
    measurement.sampled->sites.push_back({frames, frames, 1, copies, false});
    ++measurement.sampled->samples;
  };
  const cow::Frame unknown{"unknown code", "", 0, "", 0, false};
  sample(before, {{line}}, 5000);
  sample(before, {{unknown}}, 1000);
  sample(after, {{unknown}}, 1200);
  const Comparison comparison = compare(before, after);
  EXPECT_THAT(growth_of(comparison.sites),
              ElementsAre("fill() fill.cc:12 -5000", "unknown code 200"));
  const std::string table = comparison_table(comparison, {"a", "b"});
  EXPECT_THAT(
      table, StartsWith("before: a\nafter:  b\n"
                        "The processes copied 3.9 MiB instead of 23.4 MiB: 19.5 MiB less (-83.3%), "
                        "mostly\n    by fill() fill.cc:12.\n"));
  EXPECT_THAT(table, HasSubstr("        19.5          0.0        -19.5   -100.0%  fill()"));
  after.sampled->sites[0].estimated_copies = 3000;
  EXPECT_THAT(growth_of(compare(before, after).sites), Contains("fill() fill.cc:12"));
}

TEST(Comparison, CountsRowsBelowOneMiB) {
  const auto run = [](std::uint64_t pages) { return run_of(100, {pages, 100, 1, 2560, 2560}); };
  const std::string table = comparison_table(compare(run(2560), run(2)), {"a", "b"});
  EXPECT_THAT(table,
              HasSubstr("                                                 2 more rows changed by"));
  EXPECT_THAT(
      table,
      HasSubstr("                                                 3 more rows below 1 MiB\n"));
  EXPECT_THAT(table,
              HasSubstr("        10.0          0.0        -10.0    -99.9%  server/worker[1]\n"));
  EXPECT_THAT(table, HasSubstr("        30.4         20.4        -10.0    -32.9%  total\n"));
  EXPECT_THAT(comparison_table(compare(run(2560), run(2500)), {"a", "b"}),
              HasSubstr("\nThe processes copied about as much as before: 30.2"));
}

TEST(Comparison, WhatIsTooFewForASampleIsNotNothing) {
  auto before = full_measurement();
  auto after = full_measurement();
  after.sampled->mappings.push_back({"[stack]", 1, 191});
  after.sampled->samples = 0;
  for (const auto& mapping : after.sampled->mappings) after.sampled->samples += mapping.samples;
  before.sampled->samples = after.sampled->samples - 1;
  before.sampling->period = 64;
  EXPECT_EQ(change_of(compare(before, after).mappings, "[stack]").before, std::nullopt);
  EXPECT_EQ(change_of(compare(after, before).mappings, "[stack]").before, 191);
  after.sampled->mappings.back().estimated_copies = 192;
  EXPECT_EQ(change_of(compare(before, after).mappings, "[stack]").before, 0);
  after.sampled->mappings.back().estimated_copies = 1;
  before.sampling->period = 1;
  EXPECT_EQ(change_of(compare(before, after).mappings, "[stack]").before, 0);
}

TEST(Comparison, OfNothing) {
  const Comparison comparison = compare({}, {});
  EXPECT_EQ(comparison.total.before, std::nullopt);
  EXPECT_THAT(comparison.processes, IsEmpty());
  EXPECT_THAT(comparison.sites, IsEmpty());
}

TEST(Comparison, OfPythonComparesLinesAndTypes) {
  cow::Measurement before = full_measurement();
  const cow::Frame line{"total", "/app/pool.py", 4, "", 0, false, true};
  before.sampled->sites = {{{line}, {line}, 10, 640, false}};
  cow::Measurement after = before;
  after.sampled->sites[0].estimated_copies = 740;
  after.sampled->types[0].estimated_copies = 400;
  const Comparison comparison = compare(before, after);
  EXPECT_THAT(growth_of(comparison.sites), ElementsAre("total (pool.py:4) 100"));
  EXPECT_THAT(growth_of(comparison.types), ElementsAre("str -48"));
  EXPECT_THAT(comparison_table(comparison, {"a", "b"}),
              HasSubstr("types of Python objects of all processes, estimated:\n"));
}

}  // namespace
}  // namespace cowshed::cowtop
