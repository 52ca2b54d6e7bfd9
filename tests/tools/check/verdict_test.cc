#include <nlohmann/json.hpp>
#include <source_location>

#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/check/verdict.h>
#include <cowshed/tools/cowtop/check/verdict_reports.h>

namespace cowshed::cowtop {
namespace {

using ::testing::ElementsAreArray;
using ::testing::Matcher;

constexpr std::uint64_t kPage = cow::kPageSize;

cow::ProcessCopies process(pid_t pid, std::uint64_t pages) {
  cow::ProcessCopies result = copier(pid, "worker", pages);
  result.shared_at_fork_bytes = 1000 * kPage;
  return result;
}

// A root that copied 1 page, and two children with 4 and 6.
cow::Measurement measured() {
  return measurement_with({root_copier(10, "server", 1), process(11, 4), process(12, 6)});
}

cow::Measurement root_alone() { return measurement_with({measured().processes[0]}); }

cow::Measurement with_objects() {
  cow::Measurement measurement = measured();
  for (cow::ProcessCopies& each : measurement.processes) {
    each.arenas = {{"arena", 1 << 20, 3}};
    each.copied_file_pages = 3;
    each.objects = {{"index", "Index", "arena", 3}, {"names", "Names", "arena", 0}};
  }
  return measurement;
}

Budget copied(std::uint64_t pages) {
  Budget budget;
  budget.max_copied_bytes = pages * kPage;
  return budget;
}

Budget ratio(double most) {
  Budget budget;
  budget.max_ratio = most;
  return budget;
}

Budget of_object(const std::string& name, std::uint64_t pages) {
  Budget budget;
  budget.objects = {{name, pages * kPage}};
  return budget;
}

// Of all processes together.
Budget tree(Budget budget) {
  budget.per = Budget::Per::tree;
  return budget;
}

Verdict verdict(const cow::Measurement& measurement, const Budget& budget) {
  return verdict_on(measurement, budget, std::nullopt, {});
}

template <class Change>
cow::Measurement with(cow::Measurement measurement, Change change) {
  change(measurement.processes);
  return measurement;
}

using Lines = std::vector<std::string>;

// The lines that are printed, or how they begin.
void expect(const Verdict& verdict, const Lines& over, const Lines& notes = {},
            const Lines& not_measured = {},
            const std::source_location& where = std::source_location::current()) {
  const ::testing::ScopedTrace trace(where.file_name(), static_cast<int>(where.line()), "expected");
  const auto begin_with = [](const Lines& texts) {
    std::vector<Matcher<std::string>> matchers;
    for (const std::string& text : texts) matchers.push_back(StartsWith(text));
    return ElementsAreArray(matchers);
  };
  EXPECT_THAT(over_lines(verdict), begin_with(over));
  EXPECT_EQ(verdict.is_over(), !over.empty());
  EXPECT_THAT(verdict.notes, begin_with(notes));
  EXPECT_THAT(verdict.not_measured, begin_with(not_measured));
}

TEST(VerdictTest, AKillForWantOfMemoryIsNoted) {
  const auto killed = with(measured(), [](auto& processes) {
    processes[2].signal = SIGKILL;
    processes[2].sender = {12, "worker"};
    processes[2].out_of_memory = {true, "/build", 400 << 20};
  });
  expect(verdict(killed, copied(9)), {},
         {"child 12 (worker) was killed by SIGKILL, out of memory: memory.max of /build "
          "(400.0\u00a0MiB) was reached, when it asked for more"});
}

TEST(VerdictTest, NewMemoryOfEachChildAndOfAllChildren) {
  const auto measurement = with(measured(), [](auto& processes) {
    processes[0].zero_filled_pages = 90;  // a root's is not new
    processes[1].zero_filled_pages = 4;
    processes[2].zero_filled_pages = 6;
  });
  Budget budget;
  budget.max_new_bytes = 5 * kPage;
  expect(verdict(measurement, budget),
         {"child 12 (worker): limited to 20.0 KiB of new memory, used 24.0 KiB"});
  budget.max_new_bytes = 9 * kPage;
  expect(verdict(measurement, budget), {});
  expect(verdict(measurement, tree(budget)),
         {"tree: limited to 36.0 KiB of new memory, used 40.0 KiB"});
  expect(verdict(root_alone(), budget), {}, {}, {"max_new: there was no process below the root"});
  const auto merged = with(measurement, [](auto& processes) { processes[2].processes = 3; });
  budget.max_new_bytes = 2 * kPage;
  expect(verdict(merged, budget), {"child 11 (worker): limited to 8.0 KiB of new memory, used 16"});
  expect(verdict(merged, tree(budget)), {"tree: limited to 8.0 KiB of new memory, used 40.0 KiB"});
}

TEST(VerdictTest, OwnMemoryOfEachProcessAlsoOfTheRootAndOfPrograms) {
  const auto measurement = with(measured(), [](auto& processes) {
    processes[0].alive = true;
    processes[0].memory = {.private_bytes = 8 * kPage};
    processes[1].zero_filled_pages = processes[1].memory.emplace().private_bytes = 0;
    processes[2].execs = 1;
    processes[2].copied_pages_before_exec = 6;
    processes[2].memory = {.private_bytes = 90 * kPage};
    processes[2].alive = true;
  });
  Budget budget;
  budget.max_own_bytes = 90 * kPage;
  expect(verdict(measurement, budget), {});
  expect(verdict(measurement, tree(budget)),
         {"tree: limited to 360.0 KiB of its own, used 408.0 KiB"});
  budget.max_own_bytes = 7 * kPage;
  expect(verdict(measurement, budget),
         {"child 12 (worker): limited to 28.0 KiB of its own, used 360.0 KiB",
          "root 10 (server): limited to 28.0 KiB of its own, used 32.0 KiB"});
  const auto shrunk = with(measurement, [](auto& processes) {
    processes[0].resident_before_bytes = 200 * kPage;
    processes[0].shared_before_bytes = 50 * kPage;
  });
  expect(verdict(shrunk, budget),
         {"root 10 (server): limited to 28.0 KiB of its own, used 600.0 KiB", "child 12 (worker)"});
}

TEST(VerdictTest, OwnMemoryThatIsNotKnownIsNotWithinALimit) {
  Budget budget;
  budget.max_own_bytes = 1 << 30;
  expect(verdict(root_alone(), budget), {}, {"not held to max_own: root 10 (server)"},
         {"max_own: "});
}

TEST(VerdictTest, MemoryThatWasNotComparedMayReachALimit) {
  auto measurement = with(measured(), [](auto& processes) {
    processes[0].alike = {.same_address_bytes = 0};
    processes[1].zero_filled_pages = processes[2].zero_filled_pages = 0;
    processes[2].copied_anon_pages = 300;
  });
  Budget budget;
  budget.max_alike_bytes = 299 * kPage;
  const Lines notes = {"not held to max_alike: child 11 (worker), child 12 (worker): it was not"};
  expect(verdict(measurement, budget), {}, notes, {"some processes or copies were missed"});
  budget.max_alike_bytes = 300 * kPage;
  expect(verdict(measurement, budget), {}, notes);
}

TEST(VerdictTest, NewMemoryThatIsNotKnownIsNotWithinALimit) {
  const auto measurement = with(measured(), [](auto& processes) {
    processes[1].zero_filled_pages = 0;
    processes[2].zero_filled_pages = 256;  // unread: it may have given them back
  });
  Budget budget;
  budget.max_new_bytes = 1 << 30;
  const Lines notes = {"not held to max_new: child 12 (worker): it ended before its memory was"};
  const Lines missed = {"some processes or copies were missed"};
  expect(verdict(measurement, budget), {}, notes, missed);
  expect(verdict(measurement, tree(budget)), {}, notes, missed);
}

TEST(VerdictTest, NoLineMadeTheMemoryThatNoWriteFaultMade) {
  auto measurement = with(measured(), [](auto& processes) {
    processes.pop_back();
    processes[1].copied_anon_pages = 0;
    processes[1].zero_filled_pages = 10 << 8;
    processes[1].memory = {1000 * kPage, 40 << 20, 1, 10 << 8};  // 30 MiB by mlock
  });
  const cow::Frame line{"line", "c.cc", 15, "a.out", 0, false};
  measurement.new_memory.emplace().sites = {{{line}, {line}, 9, 10 << 8, false}};
  Budget budget;
  budget.max_new_bytes = 1 << 20;
  const std::string culprits =
      "limited to 1.0 MiB of new memory, used 40.0 MiB; culprits: "
      "no write fault (mlock, MAP_POPULATE, O_DIRECT) ~30.0 MiB, line c.cc:15 ~10.0 MiB";
  expect(verdict(measurement, budget), {"child 11 (worker): " + culprits});
  expect(verdict(measurement, tree(budget)), {"tree: " + culprits});
}

TEST(VerdictTest, CopiesOfEachChildAndOfAllWithTheRoot) {
  expect(verdict(measured(), copied(6)), {});
  expect(verdict(measured(), copied(5)), {"child 12 (worker): limited to 20.0 KiB, used 24.0 KiB"});
  expect(verdict(measured(), tree(copied(11))), {});
  expect(
      verdict(measured(), tree(copied(10))),
      {"tree: limited to 40.0 KiB, used 44.0 KiB; culprits: child 12 (worker) 24.0 KiB, child 11 "
       "(worker) 16.0 KiB, root 10 (server) 4.0 KiB"});
  const auto large = with(measured(), [](auto& all) { all = {process(11, (64 << 8) + 1)}; });
  expect(verdict(large, copied(64 << 8)),
         {"child 11 (worker): limited to 67108864 B, used 67112960 B"});
}

TEST(VerdictTest, RatioOfWhatWasShared) {
  expect(verdict(measured(), ratio(0.006)), {});
  expect(verdict(measured(), ratio(0.005)),
         {"child 12 (worker): limited to 0.5% (20.0 KiB) of the 3.9 MiB shared at its fork, used "
          "0.6% (24.0 KiB)"});
  expect(verdict(measured(), tree(ratio(0.005))), {});  // 10 of 2000
  expect(verdict(measured(), tree(ratio(0.0049))), {"tree: limited to 0.5%"});
  const auto again = [](auto& all) { all[1].copied_anon_pages = 1500; };  // of 1000
  expect(verdict(with(measured(), again), ratio(1)), {"child 11 (worker): limited to 100.0%"});
  const auto files = [](auto& all) { all[2].copied_file_pages = 900; };
  expect(verdict(with(measured(), files), ratio(0.006)), {});
  const auto little = [](auto& all) { all[1].shared_at_fork_bytes = (1 << 20) - 1; };
  expect(verdict(with(measured(), little), ratio(0)), {"child 12 "},
         {"not held to max_ratio: child 11 (worker): it shared less than 1 MiB at its fork"});
  auto executed = with(measured(), [](auto& all) { all[2].execs = 1; });
  executed.processes[2].copied_pages_before_exec = 6;
  expect(verdict(executed, ratio(0.005)), {});
  expect(verdict(executed, copied(5)), {"child 12 "});
}

TEST(VerdictTest, AChildThatOnlyRanAProgramIsNoRowOfWhatIsNotHeldToARatio) {
  const auto ran = [](cow::ProcessCopies& process) { process.execs = 1; };
  auto some = with(measured(), [&](auto& all) { ran(all[2]); });
  expect(verdict(some, ratio(0.006)), {});
  some.processes[2].copied_pages_before_exec = 2;
  some.processes[2].shared_at_fork_bytes = 4096;
  expect(verdict(some, ratio(0.006)), {});
  some.processes[2].shared_at_fork_bytes.reset();  // posix_spawn
  expect(verdict(some, ratio(0.006)), {});
  some.processes[2].execs = 0;  // of no such program
  some.processes[2].shares_memory = true;
  expect(verdict(some, ratio(0.006)), {});
  ran(some.processes[1]);
  expect(verdict(some, ratio(0.006)), {}, {}, {"max_ratio: no process below the root goes on"});
}

TEST(VerdictTest, ObjectsOfEachProcessTheRootAmongThem) {
  expect(verdict(with_objects(), of_object("index", 2)),
         {"object 'index' in root 10 (server): limited to 8.0 KiB, used 12.0 KiB; culprits: object "
          "'index' 12.0 KiB",
          "object 'index' in child 11", "object 'index' in child 12"});
  expect(verdict(with_objects(), of_object("index", 3)), {});
  expect(verdict(with_objects(), of_object("names", 0)), {});
  expect(verdict(with_objects(), tree(of_object("index", 9))), {});
  expect(verdict(with_objects(), tree(of_object("index", 8))), {"object 'index' in tree"});
  const auto not_seen = with(with_objects(), [](auto& all) { all[2].objects.reset(); });
  expect(verdict(not_seen, of_object("index", 9)), {},
         {"not held to object 'index': child 12 (worker): of which objects its copies are was not "
          "seen"});
  const auto many = with(with_objects(), [](auto& all) {
    all[2].objects->erase(all[2].objects->begin());
    all[2].objects->push_back({"", cow::kFurtherObjects, "", 9});
  });
  expect(verdict(many, of_object("index", 3)), {},
         {"not held to object 'index': child 12 (worker): it copied more objects than cowtop keeps "
          "apart"});
  const auto more = with(with_objects(), [](auto& all) { all[2].arenas[0].copied_pages = 5; });
  expect(verdict(more, of_object("index", 9)), {},
         {"2 pages of arena 'arena' that 1 process copied are of no object"});
}

TEST(VerdictTest, AnObjectThatNobodyPublishedIsNotWithin) {
  const Budget misspelt = of_object("idnex", 0);
  const std::string why = "object 'idnex': no process was seen to publish one of that name";
  expect(verdict_on(with_objects(), misspelt, std::nullopt, {"third"}), {}, {},
         {why + "; there were 'index', 'names', 'third'"});
  expect(verdict(measured(), misspelt), {}, {}, {why + ", nor of any"});
  expect(verdict_on(measured(), misspelt, std::nullopt, {"idnex"}), {});  // not a page of it
}

TEST(VerdictTest, GrowthIsOfAllTogether) {
  const auto against = [](std::uint64_t pages, const char* backend, Lines notes) {
    Budget budget;
    budget.baseline = "file";
    budget.max_growth = 0.1;
    return verdict_on(measured(), budget, Baseline{pages * kPage, backend, std::move(notes)}, {});
  };
  expect(against(10, "tracepoint", {}), {});
  expect(
      against(9, "tracepoint", {}),
      {"tree: limited to 39.6 KiB, 36.0 KiB in the baseline, used 44.0 KiB; culprits: child 12"});
  expect(against(10, "pagemap", {"it is old"}), {},
         {"it is old", "the baseline is of the pagemap backend"});
}

TEST(VerdictTest, WhatIsNotKnownIsSaid) {
  auto unknown = with(measured(), [](auto& all) {
    all[1].copied_anon_pages.reset();
    all[1].not_measured = "because";
  });
  unknown.lost_events = 3;
  unknown.not_seen = {1, 2};
  const Lines notes = {"not held to max_copied: child 11 (worker): because", "3 events lost",
                       "1 to 2 processes ended unseen"};
  const Verdict found = verdict(unknown, copied(6));
  expect(found, {}, notes, {"some processes or copies were missed"});
  EXPECT_FALSE(found.held[0].used_bytes);
  EXPECT_FALSE(verdict(unknown, tree(copied(7))).is_over());
  EXPECT_EQ(verdict(unknown, tree(copied(7))).notes.size(), 3U);
  EXPECT_TRUE(verdict(unknown, tree(copied(6))).is_over());
}

TEST(VerdictTest, WhatWasCopiedBeforeTheLookIsNotZero) {
  auto older = with(measured(), [](auto& all) { all[2].shared_at_fork_bytes.reset(); });
  expect(verdict(older, copied(6)), {},
         {"not held to max_copied: child 12 (worker): it was forked"},
         {"some processes or copies were missed"});
  EXPECT_TRUE(verdict(older, copied(5)).is_over());
  older.processes[2].not_measured = "because";  // its share of a fork that was seen
  EXPECT_THAT(verdict(older, copied(6)).not_measured, IsEmpty());
}

TEST(VerdictTest, WhatACommandLeavesBehindIsNotWithin) {
  const auto daemon =
      with(measured(), [](auto& all) { all[0].alive = false, all[2].alive = true; });
  expect(verdict(daemon, copied(6)), {},
         {"the command has ended, but child 12 (worker) still runs"},
         {"some processes or copies were missed"});
  const auto server = with(measured(), [](auto& all) { all[0].alive = true, all[2].alive = true; });
  expect(verdict(server, copied(6)), {});
}

TEST(VerdictTest, OfWhatEndedUnreadByTheSampledBackendNothingIsWithin) {
  auto sampled = measured();
  sampled.exact = false;
  sampled.taken_ns = 3'000'000'000;
  sampled.duration_s = 3;
  for (cow::ProcessCopies& each : sampled.processes) {
    each.memory = {1000 * kPage, 0, 1'950'000'000};
    each.start_ns = 1'000'000'000;
    each.end_ns = 2'000'000'000;
  }
  expect(verdict(sampled, copied(6)), {});
  sampled.processes[1].memory->sampled_ns = 1'500'000'000;
  expect(verdict(sampled, copied(6)), {}, {}, {"some processes or copies were missed"});
}

TEST(VerdictTest, NothingToHold) {
  auto root = root_alone();
  const auto not_measured = [&](const Budget& budget) {
    return verdict(root, budget).not_measured;
  };
  EXPECT_THAT(not_measured(copied(6)),
              ElementsAre("max_copied: there was no process below the root"));
  root.not_seen = {2, 2};
  EXPECT_THAT(not_measured(copied(6)),
              ElementsAre("max_copied: the processes below the root ended before they were seen"));
  root.processes[0].copied_anon_pages.reset();
  EXPECT_THAT(not_measured(tree(copied(6))),
              ElementsAre("max_copied: the pagemap backend cannot tell what the root copied"));
}

TEST(VerdictTest, NumbersChildrenByTheirStartsAndOfManyShowsTheWorst) {
  const Verdict found = verdict(measured(), copied(5));
  ASSERT_EQ(found.held.size(), 2U);
  EXPECT_EQ(found.held[1].number, 2U);

  cow::Measurement measurement = measured();
  for (int i = 0; i < 30; ++i) measurement.processes.push_back(process(100 + i, 100));
  const auto lines = over_lines(verdict(measurement, copied(5)));
  ASSERT_EQ(lines.size(), 21U);
  EXPECT_THAT(lines[0], StartsWith("child 100 (worker)"));
  EXPECT_EQ(lines[20], "11 more");
}

TEST(VerdictTest, WithinIsWhoeverComesNearest) {
  Budget budget = copied(8);
  budget.max_ratio = 0.01;
  EXPECT_EQ(within_line(verdict(measured(), budget)),
            "child 12 (worker): limited to 32.0 KiB, used 24.0 KiB; child 12 (worker): limited to "
            "1.0% (40.0 KiB) of the 3.9 MiB shared at its fork, used 0.6% (24.0 KiB)");
}

// A child over its budget, sampled, of a name that no format takes as it is.
Verdict sampled_verdict(const std::string& comm, std::uint64_t pages = 6) {
  cow::Measurement measurement = measured();
  measurement.processes[2].copied_anon_pages = pages;
  measurement.processes[2].comm = comm;
  measurement.processes[2].sampled = full_measurement().processes[1].sampled;
  cow::Frames& frames = measurement.processes[2].sampled->sites[0].frames;
  cow::Frame place = frames.front();
  place.file = "../../src/a:b,%/fill.cc";
  frames = std::vector{place};
  return verdict(measurement, copied(5));
}

TEST(VerdictTest, CulpritsAreTheSampledSitesAndMappings) {
  EXPECT_THAT(over_lines(sampled_verdict("worker", 1000)),
              ElementsAre(HasSubstr("; culprits: fill() fill.cc:12 (inlined) ~1.8 MiB, mapping "
                                    "'[heap]' ~2.5 MiB")));
}

TEST(VerdictTest, NoCulpritIsMoreThanTheBudgetCounts) {
  EXPECT_THAT(over_lines(sampled_verdict("worker")),
              ElementsAre(HasSubstr("used 24.0 KiB; culprits: fill() fill.cc:12 (inlined) ~24.0 "
                                    "KiB, mapping '[heap]' ~24.0 KiB")));
}

// As of a function that writes itself, and has read(2) write.
TEST(VerdictTest, ALineThatCopiesInTwoWaysIsOneCulprit) {
  cow::Measurement measurement = measured();
  measurement.processes[2].copied_anon_pages = 1000;
  auto& sampled = measurement.processes[2].sampled;
  sampled = full_measurement().processes[1].sampled;
  sampled->mappings.clear();
  cow::CodeSite by_kernel = sampled->sites[0];
  cow::CodeSite elsewhere = sampled->sites[0];
  const cow::Frame place = by_kernel.frames.front();
  cow::Frame next_line = place;
  next_line.line = 13;
  by_kernel.frames = std::vector<cow::Frame>{{"[read(2)]", "", 0, "", 0, false}, place};
  elsewhere.frames = std::vector{next_line};
  by_kernel.estimated_copies = 64;
  elsewhere.estimated_copies = 128;
  sampled->sites.insert(sampled->sites.end(), {by_kernel, elsewhere});
  EXPECT_THAT(over_lines(verdict(measurement, copied(5))),
              ElementsAre(HasSubstr("; culprits: fill() fill.cc:12 (inlined) ~2.0 MiB, "
                                    "fill() fill.cc:13 (inlined) ~512.0 KiB")));
  measurement.processes[2].copied_anon_pages = 500;  // 640 by the estimates
  EXPECT_THAT(over_lines(verdict(measurement, copied(5))),
              ElementsAre(HasSubstr("used 2.0 MiB; culprits: fill() fill.cc:12 (inlined) ~1.6 MiB, "
                                    "fill() fill.cc:13 (inlined) ~400.0 KiB")));
}

TEST(VerdictTest, Annotations) {
  const std::string text = verdict_annotations(sampled_verdict("100%\n::x"), Severity::error);
  EXPECT_THAT(text, StartsWith("::error title=cowtop check,file=src/a%3Ab%2C%25/fill.cc,line=12::"
                               "child 12 (100%25?::x): limited to 20.0 KiB, used 24.0 KiB"));
  EXPECT_EQ(std::ranges::count(text, '\n'), 1);
  EXPECT_EQ(verdict_annotations(verdict(measured(), copied(6)), Severity::error), "");
  EXPECT_THAT(verdict_annotations(verdict(measured(), copied(5)), Severity::warning),
              StartsWith("::warning title=cowtop check::child 12"));
}

TEST(VerdictTest, AnnotationsOfPythonAreOfTheUsersFile) {
  cow::Measurement measurement = measured();
  auto& sampled = measurement.processes[2].sampled;
  sampled.emplace();
  cow::Frame line{"total", std::filesystem::current_path() / "app/pool.py", 4, "", 0, false, true};
  sampled->sites = {{{line}, {line}, 7, 448, false}};
  EXPECT_THAT(verdict_annotations(verdict(measurement, copied(5)), Severity::error),
              AllOf(StartsWith("::error title=cowtop check,file=app/pool.py,line=4::"),
                    HasSubstr("culprits: total (pool.py:4) ~")));
  line.file = "<string>";
  sampled->sites = {{{line}, {line}, 7, 448, false}};
  EXPECT_THAT(verdict_annotations(verdict(measurement, copied(5)), Severity::error),
              StartsWith("::error title=cowtop check::"));
}

TEST(VerdictTest, Json) {
  const auto json = nlohmann::json::parse(verdict_json(sampled_verdict("\xff")));
  EXPECT_EQ(json["schema"], "cowshed.check/1");
  EXPECT_EQ(json["verdict"], "over");
  EXPECT_EQ(json["held"][0]["over"], false);
  EXPECT_EQ(json["held"][1]["pid"], 12);
  EXPECT_EQ(json["held"][1]["limit_bytes"], 5 * kPage);
  EXPECT_EQ(json["held"][1]["used_bytes"], 6 * kPage);
  EXPECT_EQ(json["held"][1]["culprits"][0]["kind"], "site");
  EXPECT_EQ(json["held"][1]["culprits"][0]["line"], 12);
  EXPECT_EQ(nlohmann::json::parse(verdict_json(verdict(root_alone(), copied(5))))["verdict"],
            "not_measured");
}

// What Python's parser reads in it: a line for the suite, and one for each case.
std::string parsed_junit(const Verdict& verdict, Severity severity = Severity::error) {
  const TestFolder folder;
  write_file(folder / "junit.xml", verdict_junit(verdict, severity));
  const auto python = test::run({"/usr/bin/python3", "-c", R"(
import sys, xml.etree.ElementTree as tree
for suite in tree.parse(sys.argv[1]).getroot():
    print(*(suite.get(key) for key in ("tests", "failures", "errors", "skipped")))
    for case in suite.iter("testcase"):
        print(ascii(case.get("name")), *(each.tag for each in case))
)",
                                 folder / "junit.xml"});
  EXPECT_EQ(python.exit_status(), 0) << python.err;
  return python.out;
}

TEST(VerdictTest, JunitIsReadByAnotherParser) {
  cow::Measurement measurement = measured();
  measurement.processes[1].comm = "<\"&'\x01\xff\xef\xbf\xbf>";
  measurement.processes[1].copied_anon_pages.reset();
  measurement.processes[2].comm = "]]>\n";
  Budget budget = copied(5);
  budget.objects = {{"x<y", 0}};
  EXPECT_EQ(parsed_junit(verdict_on(measurement, budget, std::nullopt, {"x<y"})),
            "5 1 0 1\n"
            R"('max_copied: child 1 (<"&\'???>)' skipped)"
            "\n"
            "'max_copied: child 1 (]]>?)' failure\n"
            "\"object 'x<y': root (server)\"\n"
            R"('object \'x<y\': child 1 (<"&\'???>)')"
            "\n"
            "\"object 'x<y': child 1 (]]>?)\"\n");
  EXPECT_EQ(parsed_junit(verdict(root_alone(), copied(5))), "1 0 1 0\n'max_copied' error\n");
}

TEST(VerdictTest, JunitThatOnlyWarnsPassesAndSaysIt) {
  EXPECT_EQ(parsed_junit(verdict(measured(), copied(5)), Severity::warning),
            "2 0 0 0\n"
            "'max_copied: child 1 (worker)'\n"
            "'max_copied: child 2 (worker)' system-out\n");
  EXPECT_THAT(verdict_junit(verdict(measured(), copied(5)), Severity::warning),
              HasSubstr("<system-out>child 12 (worker): limited to 20.0 KiB, used 24.0 KiB"));
  EXPECT_EQ(parsed_junit(verdict(root_alone(), copied(5)), Severity::warning),
            "1 0 0 0\n'max_copied' system-out\n");
}

}  // namespace
}  // namespace cowshed::cowtop
