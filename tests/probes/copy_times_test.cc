#include <algorithm>
#include <array>
#include <cstdint>
#include <gtest/gtest.h>
#include <memory>
#include <numeric>
#include <string>
#include <unistd.h>

#include <cowshed/tests/support/setting.h>

#include "subject.h"

// How long copies take: each once, and no longer than they can have taken.

namespace cowshed::test {
namespace {

std::uint64_t timed(const CopyTimes& times) {
  return std::accumulate(times.faults.begin(), times.faults.end(), std::uint64_t{0});
}

std::uint64_t timed_from(const CopyTimes& times, std::size_t power) {
  return std::accumulate(times.faults.begin() + static_cast<std::ptrdiff_t>(power),
                         times.faults.end(), std::uint64_t{0});
}

// A BPF system call keeps the CPU's other programs out if it is preempted in its middle by the
// thread whose fault ends.
std::uint64_t most_missed(std::uint64_t copied) { return 2 + copied / 1000; }

class Times : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = cannot_probe(); !reason.empty()) {
      GTEST_SKIP() << reason;
    }
  }

  static SubjectRun run(const std::string& kind, long n) {
    Probe probe = must(Probe::load({}, Timing::on));
    SubjectRun run = run_subject(probe, kind, n);
    EXPECT_EQ(run.losses.lost(), 0U);
    for (const ProcessCounts& process : run.processes) {
      const CopyTimes times = process.copy_times.value();
      EXPECT_LE(timed(times), process.copied_pages()) << process.comm;
      // The faults of a command's start, of which the last may end after its exec, are the root's.
      if (process.role == ProcessRole::child) {
        EXPECT_GE(timed(times) + most_missed(process.copied_pages()), process.copied_pages());
      }
      EXPECT_LE(times.ns, process.threads_total * (process.end_ns.value() - process.start_ns));
      EXPECT_GE(times.ns, shortest(times));
    }
    return run;
  }

 private:
  // As its histogram says.
  static std::uint64_t shortest(const CopyTimes& times) {
    std::uint64_t ns = 0;
    for (std::size_t i = 0; i < times.faults.size(); ++i) {
      ns += times.faults[i] << i;  // NOLINT(*-constant-array-index)
    }
    return ns;
  }
};

class EveryCopy : public Times, public ::testing::WithParamInterface<const char*> {};

TEST_P(EveryCopy, IsTimedOnce) {
  const SubjectRun busy = run(GetParam(), 10'000);
  EXPECT_GE(busy.measured.copied_pages(), 10'000U);
}

INSTANTIATE_TEST_SUITE_P(Times, EveryCopy,
                         ::testing::Values("anon_copied", "kernel_copied", "thread_copied",
                                           "file_never_read", "arena_copied", "vfork_copied",
                                           "closed_and_shared"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_F(Times, OnlyCopiesAreTimed) {
  for (const char* kind : {"reused", "first_touch", "zero_page_write", "write_notify"}) {
    const ProcessCounts process = run(kind, 2'000).measured;
    EXPECT_LE(timed(process.copy_times.value()), process.copied_pages()) << kind;
    EXPECT_LT(process.copied_pages(), 1'000U) << kind;
  }
}

TEST_F(Times, ACopyThatIsHeldUpTookThatLong) {
  const ProcessCounts held_up = run("copied_slowly", 20).measured;
  constexpr std::size_t kEightMs = 23;
  EXPECT_GE(timed_from(held_up.copy_times.value(), kEightMs), 20U);
  EXPECT_GE(held_up.copy_times->ns, 200'000'000U);
}

TEST_F(Times, AreNotKnownUnlessTheyAreAskedFor) {
  Probe probe = must(Probe::load());
  const SubjectRun run = run_subject(probe, "anon_copied", 10);
  EXPECT_FALSE(run.measured.copy_times);
}

// taskstats times wp_page_copy, of which the fault consists for the most part.  Ours is the whole
// fault, so it is more; how much more is the kernel's affair: three times as long would be strange,
// ten times as long wrong.  Its clock stands still while a tick is late (see most_unseen() in
// tests/support/taskstats.h), so that it may be short by a little.
TEST_F(Times, AreThoseOfTaskstatsAndTheRestOfTheFault) {
  constexpr const char* kDelayAccounting = "/proc/sys/kernel/task_delayacct";
  if (access(kDelayAccounting, F_OK) != 0) {
    GTEST_SKIP() << "no " << kDelayAccounting;
  }
  const Setting accounting(kDelayAccounting, "1");
  const SubjectRun busy = run("anon_copied", 50'000);
  ASSERT_TRUE(busy.wpcopy) << "taskstats did not answer";
  const auto ours = static_cast<double>(busy.while_alive.copy_times.value().ns);
  const auto theirs = static_cast<double>(busy.wpcopy->ns);
  RecordProperty("ratio", std::to_string(ours / theirs));
  EXPECT_GT(ours, theirs);
  EXPECT_LT(ours, 10 * theirs);
}

}  // namespace
}  // namespace cowshed::test
