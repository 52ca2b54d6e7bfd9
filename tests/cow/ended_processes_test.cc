#include <gtest/gtest.h>

#include <cowshed/cow/ended_processes.h>
#include <cowshed/cow/subtrees.h>

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
  std::vector<bool> ended;
  for (const ProcessCopies& each : processes) ended.push_back(!each.alive);
  const auto plan = merge_ended(processes, ended, most);
  std::vector<ProcessCopies> sums = processes;
  std::vector<ProcessCopies> result;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    EXPECT_LE(plan[i].into, i);
    EXPECT_EQ(plan[plan[i].into].into, plan[i].into);
    sums[i].ppid = plan[i].ppid;
    if (plan[i].into != i) add_to(sums[plan[i].into], processes[i]);
  }
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (plan[i].into == i) result.push_back(sums[i]);
  }
  return result;
}

std::uint64_t pages_of(const std::vector<ProcessCopies>& processes) {
  std::uint64_t sum = 0;
  for (const ProcessCopies& each : processes) sum += each.copied_pages().value_or(0);
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

TEST(EndedProcesses, ThoseThatCopiedMostStay) {
  std::vector<ProcessCopies> processes = {root()};
  for (pid_t pid = 2; pid < 102; ++pid) {
    processes.push_back(process(pid, 1, "child", static_cast<std::uint64_t>(pid)));
  }
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

TEST(EndedProcesses, AreAddedUpBelowWhoStays) {
  // Of two shells that run, and of one below the second that has ended like its children.
  std::vector<ProcessCopies> processes = {root(), running(process(2, 1, "sh", 0)),
                                          running(process(3, 1, "sh", 0)),
                                          process(4, 3, "make", 0)};
  for (pid_t pid = 10; pid < 40; ++pid) {
    processes.push_back(process(pid, 2 + pid % 3, pid % 2 == 0 ? "cc" : "as", 5));
  }
  const auto before = subtrees(processes);
  const auto result = merged(processes, 20);
  const auto after = subtrees(result);
  ASSERT_EQ(result[1].pid, 2);
  ASSERT_EQ(result[2].pid, 3);
  for (const std::size_t shell : {std::size_t{1}, std::size_t{2}}) {
    EXPECT_EQ(after[shell].copied_pages, before[shell].copied_pages);
    EXPECT_EQ(after[shell].processes, before[shell].processes);
  }
}

TEST(EndedProcesses, WhoRunsBelowThemKeepsThem) {
  std::vector<ProcessCopies> processes = {root(), process(2, 1, "launcher", 0)};
  for (pid_t pid = 3; pid < 30; ++pid) processes.push_back(process(pid, 1, "child", 9));
  processes.push_back(running(process(30, 2, "daemon", 0)));
  const auto result = merged(processes, 8);
  EXPECT_EQ(result[1].comm, "launcher");
  EXPECT_EQ(subtrees(result)[1].processes, 2U);
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
  EXPECT_EQ(subtrees(processes)[0].copied_pages, pages);
  EXPECT_EQ(subtrees(processes)[0].processes, count);
}

}  // namespace
}  // namespace cowshed::cow
