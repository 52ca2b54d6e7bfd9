#include "subject.h"

// Far more runnable processes than CPUs.  Since Linux 7.0 BPF skips programs there, because another
// task was preempted inside them.

namespace cowshed::test {
namespace {

constexpr std::uint64_t kPages = 2000;  // as in ground_truth/storms.cc
constexpr std::uint64_t kPagesOfShort = 50;
constexpr std::uint64_t kOwnPages = 8;  // of its stack and its libraries
constexpr std::uint64_t kOwnPagesOfExec = 24;

class Storm : public WithProbe {
 protected:
  // The processes that `is_one_of_them`.
  template <class Filter>
  static std::vector<ProcessCounts> those(const SubjectRun& of, Filter is_one_of_them) {
    std::vector<ProcessCounts> result;
    for (const ProcessCounts& process : of.processes)
      if (is_one_of_them(process)) result.push_back(process);
    return result;
  }

  static std::vector<ProcessCounts> children(const SubjectRun& of) {
    return those(of, [&](const ProcessCounts& each) { return each.parent_id == of.measured.id; });
  }

  static void expect_ended_and_nothing_lost(const SubjectRun& of) {
    EXPECT_EQ(of.losses.lost(), 0U);
    for (const ProcessCounts& process : of.processes) {
      EXPECT_FALSE(process.alive) << process.pid;
      EXPECT_EQ(process.pending_faults, 0U) << process.pid;
    }
  }

  void expect_exact(const char* kind, std::size_t n, std::uint64_t pages) {
    SCOPED_TRACE(std::string(kind) + " " + std::to_string(n));
    const SubjectRun storm = run(kind, static_cast<long>(n));
    expect_ended_and_nothing_lost(storm);
    EXPECT_THAT(children(storm), SizeIs(n));
    for (const ProcessCounts& child : children(storm)) {
      EXPECT_GE(child.copied_anon_pages, pages) << child.pid;
      EXPECT_LE(child.copied_anon_pages, pages + kOwnPages) << child.pid;
    }
  }
};

TEST_F(Storm, EachChildsCopiesAreExact) {
  for (const unsigned n : {2U, 4U, 16U}) expect_exact("storm_of_copies", n, kPages);
}

TEST_F(Storm, CopiesByThreadsAreExact) { expect_exact("storm_of_threads", 8, kPages); }

TEST_F(Storm, CopiesByTheKernelAreExact) { expect_exact("storm_of_reads", 16, kPages); }

TEST_F(Storm, EachOfManyShortChildrenIsExact) {
  expect_exact("storm_of_short_children", 2000, kPagesOfShort);
}

TEST_F(Storm, CopiesBeforeAndAfterAnExecAreExact) {
  const SubjectRun storm = run("storm_of_execs", 16);
  expect_ended_and_nothing_lost(storm);
  ASSERT_THAT(children(storm), SizeIs(16));
  for (const ProcessCounts& child : children(storm)) {
    EXPECT_EQ(child.execs, 1U);
    EXPECT_GE(child.copied_pages_before_exec, kPages);
    EXPECT_LE(child.copied_pages_before_exec, kPages + kOwnPagesOfExec);
    const auto of_program =
        those(storm, [&](const ProcessCounts& each) { return each.parent_id == child.id; });
    ASSERT_THAT(of_program, SizeIs(1));
    EXPECT_GE(of_program[0].copied_anon_pages, kPages);
    EXPECT_LE(of_program[0].copied_anon_pages, kPages + kOwnPages);
  }
}

}  // namespace
}  // namespace cowshed::test
