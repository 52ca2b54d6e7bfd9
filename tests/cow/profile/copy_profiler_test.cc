#include <cowshed/cow/profile/copy_profiler.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

std::vector<CopySample> samples_of(std::uint64_t process_id, std::size_t number) {
  CopySample sample;
  sample.process_id = process_id;
  return std::vector<CopySample>(number, sample);
}

ProcessCounts process_of(std::uint64_t id) {
  ProcessCounts process;
  process.id = id;
  return process;
}

// Whoever empties the buffer of samples gets his turn in between, and what he adds is not lost.
TEST(CopyProfiler, TakesMoreWhileItAttributes) {
  CopyProfiler sampler{ProcFiles()};
  ProcessCounts process = process_of(7);
  sampler.add(samples_of(process.id, 1000));
  std::size_t turns = 0;
  sampler.attribute({process}, [&] {
    ++turns;
    sampler.add(samples_of(process.id, 1));
  });
  EXPECT_GT(turns, 10U);
  const std::size_t before = turns;
  sampler.attribute({process}, [&] { ++turns; });
  EXPECT_LE(turns, before + 1) << "the first thousand again";
  EXPECT_EQ(sampler.of(process.id, {{process.id, 1}}).samples, 1000 + before);
}

TEST(CopyProfiler, KeepsThoseOfAProcessThatItDoesNotKnowYet) {
  CopyProfiler sampler{ProcFiles()};
  ProcessCounts process = process_of(7);
  sampler.add(samples_of(process.id, 5));
  sampler.attribute({}, [] {});
  EXPECT_EQ(sampler.of_all({}).samples, 0U) << "a look at it is no reason to lose its code";
  sampler.attribute({process}, [] {});
  EXPECT_EQ(sampler.of(process.id, {{process.id, 1}}).samples, 5U);
}

TEST(CopyProfiler, BetweenSnapshotsOnlyWhatIsKnownIsAttributed) {
  CopyProfiler sampler{ProcFiles()};
  ProcessCounts process = process_of(7);
  sampler.attribute({process}, [] {});
  sampler.add(samples_of(process.id, 5));
  sampler.attribute_known([] {});
  EXPECT_FALSE(sampler.is_waiting());
  sampler.add(samples_of(8, 3));
  std::vector<CopySample> executed = samples_of(process.id, 1);
  executed[0].execs = 1;
  sampler.add(std::move(executed));
  sampler.attribute_known([] {});
  EXPECT_TRUE(sampler.is_waiting());
  process.execs = 1;
  ProcessCounts other = process_of(8);
  sampler.attribute({process, other}, [] {});
  EXPECT_FALSE(sampler.is_waiting());
  EXPECT_EQ(sampler.of(process.id, {{process.id, 1}}).samples, 6U);
  EXPECT_EQ(sampler.of(other.id, {{other.id, 1}}).samples, 3U);
}

// As at a period of 1, where a program copies faster than its stacks are unwound.
TEST(CopyProfiler, WhatWaitsIsBoundedInBytes) {
  CopyProfiler sampler{ProcFiles()};
  std::uint64_t added = 0;
  constexpr std::size_t kStackBytes = 1 << 20;
  for (; added * kStackBytes < 2 * CopyProfiler::kMostWaitingBytes; ++added) {
    std::vector<CopySample> one = samples_of(7, 1);
    one[0].stack.resize(kStackBytes);
    sampler.add(std::move(one));
  }
  EXPECT_GE(sampler.dropped(), added / 2);
  sampler.attribute({process_of(7)}, [] {});
  EXPECT_EQ(sampler.of_all({}).samples, added - sampler.dropped()) << "those that are not counted";
  const std::uint64_t dropped = sampler.dropped();
  sampler.add(samples_of(7, 1));
  EXPECT_EQ(sampler.dropped(), dropped) << "there is room again";
}

// Each is sampled once in many, and some never.
TEST(CopyProfiler, CopiesOfManyProcessesWithFewSamplesAreEstimatedTogether) {
  CopyProfiler sampler{ProcFiles()};
  ProfileBuilder::Copies copies;
  for (std::uint64_t id = 1; id <= 100; ++id) copies[id] = 20;
  sampler.add(samples_of(7, 1));
  sampler.add(samples_of(8, 3));
  sampler.attribute({process_of(7), process_of(8)}, [] {});
  const SampledCopies all = sampler.of_all(copies);
  ASSERT_EQ(all.sites.size(), 1U);
  EXPECT_EQ(all.sites[0].estimated_copies, 2000U);
  EXPECT_EQ(sampler.of(7, copies).sites[0].estimated_copies, 20U) << "of itself what it copied";
}

// Of the first process most samples were lost: each stands for more copies than the other's.
TEST(CopyProfiler, WhatCopiedMoreComesFirstThoughOfFewerSamples) {
  CopyProfiler sampler{ProcFiles()};
  std::vector<CopySample> by_system_call = samples_of(8, 64);
  for (CopySample& each : by_system_call) each.user_mode = false;
  sampler.add(samples_of(7, 32));
  sampler.add(by_system_call);
  sampler.attribute({process_of(7), process_of(8)}, [] {});
  const SampledCopies all = sampler.of_all({{7, 64'000}, {8, 6'400}});
  ASSERT_EQ(all.sites.size(), 2U);
  EXPECT_EQ(all.sites[0].estimated_copies, 64'000U);
  EXPECT_EQ(all.sites[1].estimated_copies, 6'400U);
}

}  // namespace
}  // namespace cowshed::cow
