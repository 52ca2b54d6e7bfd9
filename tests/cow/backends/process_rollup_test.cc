#include <cowshed/cow/backends/process_rollup.h>
#include <cowshed/cow/fork_copies.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

ProcessCopies process(pid_t pid, pid_t ppid, const std::string& comm, std::uint64_t pages) {
  ProcessCopies result;
  result.pid = pid;
  result.ppid = ppid;
  result.comm = comm;
  result.start_ns = static_cast<std::uint64_t>(pid);
  result.end_ns = static_cast<std::uint64_t>(pid) + 1;
  result.exit_status = 0;
  result.copied_anon_pages = pages;
  result.copied_file_pages = 1;
  result.shared_at_fork_bytes = 100;
  result.arenas = {{"arena", 4096, pages}};
  return result;
}

ProcessCopies running(ProcessCopies process) {
  process.alive = true;
  process.end_ns.reset();
  process.exit_status.reset();
  return process;
}

ProcessCopies root() {
  ProcessCopies result = running(process(1, 0, "root", 3));
  result.role = Role::root;
  return result;
}

// What a backend makes of it.
std::vector<ProcessCopies> merged(const std::vector<ProcessCopies>& processes, std::size_t most) {
  std::vector<ProcessCopies> sums = processes;
  std::vector<EndedProcess> entries;
  for (ProcessCopies& each : sums) entries.push_back({&each, !each.alive});
  std::vector<bool> is_merged(sums.size());
  merge_ended(entries, most, [&](std::size_t i, std::size_t into) {
    EXPECT_LT(into, i);
    EXPECT_FALSE(is_merged[into]);
    is_merged[i] = true;
  });
  std::vector<ProcessCopies> result;
  for (std::size_t i = 0; i < sums.size(); ++i)
    if (!is_merged[i]) result.push_back(sums[i]);
  return result;
}

std::uint64_t pages_of(const std::vector<ProcessCopies>& processes) {
  std::uint64_t sum = 0;
  for (const ProcessCopies& each : processes) sum += each.all_copied_pages().value_or(0);
  return sum;
}

std::uint64_t count_of(const std::vector<ProcessCopies>& processes) {
  Measurement measurement;
  measurement.processes = processes;
  return measurement.process_count();
}

TEST(EndedProcesses, FewStayAsTheyAre) {
  std::vector<ProcessCopies> processes = {root()};
  for (pid_t pid = 2; pid < 12; ++pid) processes.push_back(process(pid, 1, "child", 1));
  EXPECT_EQ(merged(processes, 10), processes);
}

TEST(EndedProcesses, ThoseInTheirParentsMemoryAreASumOfTheirOwn) {
  std::vector<ProcessCopies> processes = {root()};
  for (pid_t pid = 2; pid < 42; ++pid) {
    processes.push_back(process(pid, 1, "child", 2));
    processes.back().shares_memory = pid % 2 == 0;
  }
  std::uint64_t sharers = 0;
  for (const ProcessCopies& each : merged(processes, 8))
    if (each.shares_memory) sharers += each.processes;
  EXPECT_EQ(sharers, 20U);
}

TEST(EndedProcesses, ThoseThatCopiedMostStay) {
  std::vector<ProcessCopies> processes = {root()};
  for (pid_t pid = 2; pid < 102; ++pid)
    processes.push_back(process(pid, 1, "child", static_cast<std::uint64_t>(pid)));
  processes.push_back(running(process(200, 1, "child", 0)));
  const auto result = merged(processes, 40);
  ASSERT_EQ(result.size(), 1U + 1 + 10 + 1);
  const ProcessCopies& sum = result[1];
  EXPECT_EQ(sum.processes, 90U);
  EXPECT_EQ(sum.pid, 2);
  EXPECT_EQ(sum.ppid, 1);
  EXPECT_EQ(sum.comm, "child");
  EXPECT_EQ(sum.start_ns, 2U);
  EXPECT_EQ(sum.end_ns, 92U);
  EXPECT_EQ(sum.exit_status, 0);
  EXPECT_EQ(sum.shared_at_fork_bytes, 9000U);
  EXPECT_EQ(sum.arenas, (std::vector<ArenaCopies>{{"arena", 4096, *sum.copied_anon_pages}}));
  EXPECT_EQ(result[2].pid, 92);
  EXPECT_EQ(pages_of(result), pages_of(processes));
  EXPECT_EQ(count_of(result), count_of(processes));
}

TEST(EndedProcesses, WhatTheyDifferInIsNotKnown) {
  ProcessCopies sum = process(1, 0, "a", 1);
  ProcessCopies killed = process(2, 0, "a", 1);
  killed.exit_status.reset();
  killed.signal = 9;
  add_to(sum, killed);
  EXPECT_EQ(sum.exit_status, std::nullopt);
  EXPECT_EQ(sum.signal, std::nullopt);
  EXPECT_EQ(sum.comm, "a");
}

TEST(EndedProcesses, ForksAddUpUnlessThoseOfOneAreNotKnown) {
  ProcessCopies sum = process(1, 0, "a", 1);
  ProcessCopies more = process(2, 0, "a", 1);
  sum.fork_costs = {.durations = {{10, 1}, {40, 1}}, .longest_ns = 41, .failures = {{12, 1}}};
  more.fork_costs = {.durations = {{5, 1}, {40, 2}}, .longest_ns = 39, .failures = {{11, 2}}};
  add_to(sum, more);
  EXPECT_EQ(sum.fork_costs, (ForkCosts{.durations = {{5, 1}, {10, 1}, {40, 3}},
                                       .longest_ns = 41,
                                       .failures = {{11, 2}, {12, 1}}}));
  EXPECT_EQ(sum.fork_costs->median_ns(), 40U);
  more.fork_costs.reset();
  add_to(sum, more);
  EXPECT_EQ(sum.fork_costs, std::nullopt);
}

std::vector<Subtree> subtrees_of(const std::vector<ProcessCopies>& processes) {
  Measurement measurement;
  measurement.processes = processes;
  return subtrees(measurement);
}

TEST(EndedProcesses, AreAddedUpBelowWhoStays) {
  // Of two shells that run, and of one below the second that has ended like its children.
  std::vector<ProcessCopies> processes = {root(), running(process(2, 1, "sh", 0)),
                                          running(process(3, 1, "sh", 0)),
                                          process(4, 3, "make", 0)};
  for (pid_t pid = 10; pid < 40; ++pid)
    processes.push_back(process(pid, 2 + pid % 3, pid % 2 == 0 ? "cc" : "as", 5));
  const auto before = subtrees_of(processes);
  const auto result = merged(processes, 20);
  const auto after = subtrees_of(result);
  ASSERT_EQ(result[1].pid, 2);
  ASSERT_EQ(result[2].pid, 3);
  for (const std::size_t shell : {std::size_t{1}, std::size_t{2}}) {
    EXPECT_EQ(after[shell].copied_pages, before[shell].copied_pages);
    EXPECT_EQ(after[shell].processes, before[shell].processes);
  }
}

// Names, places, and a line of forks of which each ends when it has forked the next.
TEST(EndedProcesses, AreBoundedWhateverTheyAreCalled) {
  std::vector<ProcessCopies> processes = {root()};
  std::uint64_t pages = pages_of(processes);
  std::uint64_t count = 1;
  pid_t last = 1;
  constexpr std::size_t kMost = 40;
  for (pid_t pid = 2; pid < 3000; ++pid) {
    processes.push_back(process(pid, last, "worker" + std::to_string(pid), 2));
    pages += 3;
    ++count;
    last = pid;
    processes = merged(processes, kMost);
    ASSERT_LE(processes.size(), kMost + 1);
  }
  EXPECT_EQ(pages_of(processes), pages);
  EXPECT_EQ(count_of(processes), count);
  EXPECT_EQ(subtrees_of(processes)[0].copied_pages, pages);
  EXPECT_EQ(subtrees_of(processes)[0].processes, count);
}

}  // namespace
}  // namespace cowshed::cow
