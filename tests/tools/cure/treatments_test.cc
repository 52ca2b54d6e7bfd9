#include <chrono>
#include <cstdio>
#include <fmt/format.h>
#include <thread>

#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/cure/in_service.h>
#include <cowshed/tools/cowtop/cure/left_behind.h>
#include <cowshed/tools/cowtop/cure/plan.h>
#include <cowshed/tools/cowtop/cure/treatments.h>

namespace cowshed::cowtop {
namespace {

Outcome wrote(std::string output, int status = 0) { return {status, std::move(output), ""}; }

TEST(CureOutputs, WhatDoesNotVaryMustBeTheSame) {
  const std::vector<Outcome> usual = {wrote("sum 12\nin 0.51 s\n"), wrote("sum 12\nin 0.62 s\n")};
  EXPECT_EQ(likeness(usual, wrote("sum 12\nin 0.73 s\n")), Likeness::same);
  EXPECT_EQ(likeness(usual, wrote("sum 13\nin 0.51 s\n")), Likeness::numbers);
  EXPECT_EQ(likeness(usual, wrote("sum of 12\nin 0.51 s\n")), Likeness::differs);
  EXPECT_EQ(likeness(usual, wrote("sum 12\nin 0.51 s\nmore\n")), Likeness::differs);
  EXPECT_EQ(likeness(usual, wrote("sum 12\nin 0.51 s\n", 1)), Likeness::differs);
  EXPECT_EQ(likeness({{0, "", "a"}}, {0, "", "b"}), Likeness::differs);
}

TEST(CureOutputs, TheOrderOfLinesIsToldApart) {
  EXPECT_EQ(likeness({wrote("worker 1: 7\nworker 2: 8\n")}, wrote("worker 2: 8\nworker 1: 7\n")),
            Likeness::reordered);
  const std::vector<Outcome> varies = {wrote("PID 31: sum 7\nPID 32: sum 8\n"),
                                       wrote("PID 42: sum 8\nPID 41: sum 7\n")};
  EXPECT_EQ(likeness(varies, wrote("PID 51: sum 7\nPID 53: sum 8\n")), Likeness::same);
  EXPECT_EQ(likeness(varies, wrote("PID 51: sum 7\nPID 53: sum 9\n")), Likeness::numbers);
}

TEST(CureOutputs, WhereTheRunsDifferAmongThemselvesNothingIsKnownOfTheseLines) {
  EXPECT_EQ(likeness({wrote("red\n"), wrote("green\n")}, wrote("blue\n")), Likeness::unstable);
  const std::vector<Outcome> usual = {wrote("red\nsum 12\n"), wrote("green\nsum 12\n")};
  EXPECT_EQ(likeness(usual, wrote("blue\nsum 12\n")), Likeness::unstable);
  EXPECT_EQ(likeness(usual, wrote("blue\nno sum\n")), Likeness::differs);
}

TEST(CureOutputs, NumbersMayBeAddressesTimesAndPadded) {
  EXPECT_EQ(likeness({wrote("at 0x7fff12ab, 12:30:01\n")}, wrote("at 0x55e0d, 12:31:00\n")),
            Likeness::numbers);
  EXPECT_EQ(likeness({wrote("own    31 MiB\n")}, wrote("own     2 MiB\n")), Likeness::numbers);
}

std::string difference(const std::vector<Outcome>& usual, const Outcome& other) {
  const auto found = first_difference(usual, other);
  if (!found) return "none";
  return fmt::format("{}: {} | {}", found->stream, found->as_it_is.value_or("-"),
                     found->cured.value_or("-"));
}

TEST(CureOutputs, TheFirstLineThatDiffersIsShownOfBoth) {
  const std::vector<Outcome> usual = {wrote("PID 31\nsum 12\nred\n"),
                                      wrote("PID 32\nsum 12\nred\n")};
  EXPECT_EQ(difference(usual, wrote("PID 33\nsum 12\nred\n")), "none");
  EXPECT_EQ(difference(usual, wrote("PID 33\nsum 13\nred\n")), "output: sum 12 | sum 13");
  EXPECT_EQ(difference(usual, wrote("PID 33\nsum 12\nblue\n")), "output: red | blue");
  EXPECT_EQ(difference(usual, wrote("PID 33\nsum 12\n")), "output: red | -");
  EXPECT_EQ(difference({wrote("a\nb\n")}, wrote("b\na\n")), "output: a | b");
  EXPECT_EQ(difference({{0, "", "a\n"}}, {0, "", "a\nwarning\n"}), "error: - | warning");
}

Treatment treatment(const std::string& name, double peak_mib, std::uint64_t copied_mib) {
  constexpr std::uint64_t kPages = 256;
  constexpr double kBytes = 1 << 20;
  Trial trial;
  trial.measurement =
      measurement_with({root_copier(1, "server", 0), copier(2, "worker", copied_mib * kPages, 1)});
  trial.measurement->memory = {.peak_pss_bytes = static_cast<std::uint64_t>(peak_mib * kBytes)};
  Treatment result;
  if (!name.empty()) result.cure = Cure{.name = name};
  result.trials.push_back(std::move(trial));
  return result;
}

std::string best(const Treatments& treatments) {
  const Treatment* found = best_of(treatments);
  return found == nullptr ? "none" : found->cure->name;
}

TEST(Cure, TheBestNeedsTheLeastMemoryAndThenCopiesTheLeast) {
  Treatments all{{"server"}, treatment("", 400, 300), {}, {}};
  EXPECT_EQ(best(all), "none");
  all.cured = {treatment("A", 399, 299), treatment("B", 390, 290)};
  EXPECT_EQ(best(all), "none") << "too little";
  all.cured.push_back(treatment("C", 399, 100));
  EXPECT_EQ(best(all), "C") << "copies count where the peak is the same";
  all.cured.push_back(treatment("D", 200, 90));
  all.cured.push_back(treatment("E", 199, 90));
  EXPECT_EQ(best(all), "D") << "of two alike, the first";
  all.cured.push_back(treatment("F", 199, 10));
  EXPECT_EQ(best(all), "F");
  all.cured.push_back(treatment("between", 170, 10));
  all.cured.back().trials.push_back(treatment("", 200, 10).trials[0]);
  EXPECT_EQ(best(all), "F") << "of two that may be alike, the first";
  all.cured.push_back(treatment("G", 100, 10));
  all.cured.back().likeness = Likeness::differs;
  EXPECT_EQ(best(all), "F") << "never one that changes the output";
  EXPECT_THAT(cure_table(all), HasSubstr("Best: F, 201.0 MiB less at the peak (50%), 290.0 MiB"));
}

TEST(Cure, AQuickForkIsWorthAsMuchMemoryAsAHelpfulRemedySaves) {
  const auto forking = [](const std::string& name, double peak_mib, std::uint64_t fork_ms) {
    Treatment one = treatment(name, peak_mib, 0);
    one.trials[0].measurement->processes[0].fork_costs = {.total_ns = fork_ms * 1'000'000,
                                                          .longest_ns = fork_ms * 1'000'000};
    return one;
  };
  Treatments all{{"server"}, forking("", 400, 32), {}, {}};
  all.cured = {forking("A", 400, 17), forking("B", 430, 1)};
  EXPECT_EQ(best(all), "none") << "not half as long, or too much memory";
  all.cured.push_back(forking("C", 410, 16));
  all.cured.push_back(forking("D", 410, 1));
  EXPECT_EQ(best(all), "D") << "of two that need as much";
  EXPECT_THAT(cure_table(all), HasSubstr("Best: D, the longest fork takes 1.0 ms, not 32.0\n"));
}

TEST(Cure, RunsThatDifferMoreThanARemedySavesProveNothing) {
  Treatments all{{"server"}, treatment("", 400, 0), {treatment("A", 300, 0)}, {}};
  EXPECT_EQ(best(all), "A");
  all.as_it_is.trials.push_back(treatment("", 310, 0).trials[0]);
  EXPECT_EQ(best(all), "none");
}

TEST(Cure, APeakOfWhatEndedUnreadProvesNothing) {
  Treatments all{{"server"}, treatment("", 400, 0), {treatment("A", 300, 0)}, {}};
  all.cured[0].trials[0].measurement->exact = false;
  EXPECT_EQ(best(all), "none");
  EXPECT_THAT(cure_table(all), HasSubstr("≥ 300.0"));
  for (cow::ProcessCopies& each : all.cured[0].trials[0].measurement->processes) each.peak = {1, 1};
  EXPECT_EQ(best(all), "A");
}

TEST(Cure, OneThatChangesNumbersIsOfferedWithThatWord) {
  Treatments all{{"server"}, treatment("", 400, 0), {treatment("A", 300, 0)}, {}};
  all.cured[0].likeness = Likeness::numbers;
  all.cured[0].difference = Difference{"output", "own 31", std::nullopt};
  const std::string table = cure_table(all);
  EXPECT_THAT(table, HasSubstr(" numbers\n"));
  EXPECT_THAT(table, HasSubstr("A, the first line of its output that differs:\n"
                               "  as it is  own 31\n"
                               "  with it   (no such line)\n"));
  EXPECT_THAT(table, HasSubstr("Best: A, 100.0 MiB less at the peak (25%); numbers differ\n"));
  EXPECT_THAT(cure_json(all), HasSubstr(R"("output": "numbers")"));
}

TEST(Cure, TheReportNamesWhatTheFirstRunLeft) {
  Treatments all{{"server"}, treatment("", 400, 0), {}, {}, {"PID 7 (server)", "a.txt (new)"},
                 true};
  EXPECT_THAT(cure_table(all), HasSubstr("The first run left PID 7 (server), a.txt (new).\n"
                                         "No remedy was tried: --keep-going goes on.\n"));
}

TEST(Cure, APeakOfTheWorkersEndHasTheOneBefore) {
  Treatments all{{"server"}, treatment("", 406.8, 0), {treatment("A", 300, 0)}, {}};
  all.as_it_is.trials[0].in_service_bytes = 128 << 20;
  EXPECT_THAT(cure_table(all),
              HasSubstr("as it is: 128.0 MiB until workers began to end; the peak came then\n"));
}

// A worker that begins to end after 5 s, with 10 MiB of copies before and 190 MiB then.
std::optional<std::uint64_t> in_service(double at_exit, std::uint64_t other_start_ns) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  constexpr std::uint64_t kPages = 256;
  InService seen;
  cow::Measurement now = measurement_with({root_copier(1, "server", 0), copier(2, "worker", 0, 1)});
  cow::ProcessCopies& worker = now.processes[1];
  worker.alive = true;
  for (std::uint64_t second = 0; second < 9; ++second) {
    const std::uint64_t at_end = second < 5 ? 0 : 50 * (second - 4);
    worker.copied_anon_pages = (10 + at_end) * kPages;
    now.memory = {.peak_pss_bytes = (130 + at_end) << 20};
    seen.look(second * kSecond, now);
  }
  worker.alive = false;
  worker.patterns = {{"program exit", at_exit, 100, ""}};
  now.processes.push_back(copier(3, "worker", 0, 1));
  now.processes.back().start_ns = other_start_ns;
  return seen.peak_bytes(now);
}

TEST(Cure, TheWorkersEndIsToldFromTheirWork) {
  EXPECT_EQ(in_service(0.95, 0), 130U << 20);
  EXPECT_EQ(in_service(0, 0), std::nullopt) << "no copy was made at an end";
  EXPECT_EQ(in_service(0.95, 7'000'000'000), std::nullopt) << "another worker began since";
}

TEST(Cure, FilesThatAreNewChangedOrGoneAreNoticed) {
  const TestFolder folder;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(folder / name) << text;
  };
  std::filesystem::create_directory(folder / "in");
  for (const char* each : {"stays", "set_back", "in/goes", "in/grows"}) write(each, "a");
  const FolderState before(folder / "");
  EXPECT_THAT(before.changed(), IsEmpty());
  std::filesystem::create_directory(folder / "__pycache__");
  for (const char* each : {"__pycache__/x", "a.pyc", "server.log"}) write(each, "a");
  EXPECT_THAT(before.changed(), IsEmpty());
  FILE* tee = ::popen(fmt::format("cat >{}", (folder / "report").string()).c_str(), "w");
  // Also longer than the file system's clock needs to go on.
  do std::this_thread::sleep_for(std::chrono::milliseconds(20));
  while (!std::filesystem::exists(folder / "report"));
  EXPECT_THAT(before.changed(), IsEmpty()) << "another process of our group writes it";
  ::pclose(tee);
  std::filesystem::remove(folder / "report");
  const auto time = std::filesystem::last_write_time(folder / "set_back");
  write("set_back", "b");
  std::filesystem::last_write_time(folder / "set_back", time);
  std::filesystem::remove(folder / "in/goes");
  write("in/grows", "ab");
  write("in/comes", "a");
  EXPECT_THAT(before.changed(), UnorderedElementsAre("set_back (changed)", "in/comes (new)",
                                                     "in/grows (changed)", "in/goes (gone)"));
}

TEST(Cure, ThePlanNamesTheMostRunsAndWhatTheySet) {
  const std::vector<Cure> cures = {{.name = "A=1", .environment = {{"A", "1"}}},
                                   {.name = "B", .environment = {{"C", "2"}}, .prefix = {"d"}}};
  const std::string once = plan_text({"sh", "-c", "a b"}, cures, 1);
  EXPECT_THAT(once, StartsWith("cure runs this command 1 to 9 times, "));
  EXPECT_THAT(once, HasSubstr("\n  sh -c 'a b'\n"));
  EXPECT_THAT(once, HasSubstr("            A=1\n            B: C=2 d\n"));
  EXPECT_THAT(plan_text({"sh"}, cures, 5), StartsWith("cure runs this command 1 to 15 times, "));
}

TEST(Cure, TheCommandLineIsQuoted) {
  EXPECT_EQ(command_line({.name = "A", .environment = {{"A", "1 2"}}, .prefix = {"b c", "--"}},
                         {"sh", "-c", "echo 'a b'"}),
            R"(A='1 2' 'b c' -- sh -c 'echo '\''a b'\''')");
  EXPECT_EQ(command_line({.name = "A"}, {"a\tb", "it's\\\033", "é\xff\n", "c\nd"}),
            R"($'a\011b' $'it\'s\\\033' $'é\377\012' 'c)"
            "\nd'");
}

}  // namespace
}  // namespace cowshed::cowtop
