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

class CopyProfilerTest : public ::testing::Test {
 protected:
  CopyProfiler profiler_{ProcFiles(), [](std::uint64_t, const PythonLayout&) {}};
  ProcessCounts process_ = process_of(7);
};

// Whoever empties the buffer of samples gets his turn in between, and what he adds is not lost.
TEST_F(CopyProfilerTest, TakesMoreWhileItAttributes) {
  profiler_.add(samples_of(process_.id, 1000));
  std::size_t turns = 0;
  profiler_.attribute({process_}, [&] {
    ++turns;
    profiler_.add(samples_of(process_.id, 1));
  });
  EXPECT_GT(turns, 10U);
  const std::size_t before = turns;
  profiler_.attribute({process_}, [&] { ++turns; });
  EXPECT_LE(turns, before + 1) << "the first thousand again";
  EXPECT_EQ(profiler_.of(process_.id, {{process_.id, 1}}).sampled.samples, 1000 + before);
}

TEST_F(CopyProfilerTest, KeepsThoseOfAProcessThatItDoesNotKnowYet) {
  profiler_.add(samples_of(process_.id, 5));
  profiler_.attribute({}, [] {});
  EXPECT_EQ(profiler_.of_all({}).samples, 0U) << "a look at it is no reason to lose its code";
  profiler_.attribute({process_}, [] {});
  EXPECT_EQ(profiler_.of(process_.id, {{process_.id, 1}}).sampled.samples, 5U);
}

TEST_F(CopyProfilerTest, BetweenSnapshotsOnlyWhatIsKnownIsAttributed) {
  profiler_.attribute({process_}, [] {});
  profiler_.add(samples_of(process_.id, 5));
  profiler_.attribute_known([] {});
  EXPECT_FALSE(profiler_.is_waiting());
  profiler_.add(samples_of(8, 3));
  std::vector<CopySample> executed = samples_of(process_.id, 1);
  executed[0].execs = 1;
  profiler_.add(std::move(executed));
  profiler_.attribute_known([] {});
  EXPECT_TRUE(profiler_.is_waiting());
  process_.execs = 1;
  ProcessCounts other = process_of(8);
  profiler_.attribute({process_, other}, [] {});
  EXPECT_FALSE(profiler_.is_waiting());
  EXPECT_EQ(profiler_.of(process_.id, {{process_.id, 1}}).sampled.samples, 6U);
  EXPECT_EQ(profiler_.of(other.id, {{other.id, 1}}).sampled.samples, 3U);
}

// As at a period of 1, where a program copies faster than its stacks are unwound.
TEST_F(CopyProfilerTest, WhatWaitsIsBoundedInBytes) {
  std::uint64_t added = 0;
  constexpr std::size_t kStackBytes = 1 << 20;
  for (; added * kStackBytes < 2 * CopyProfiler::kMostWaitingBytes; ++added) {
    std::vector<CopySample> one = samples_of(7, 1);
    one[0].stack.resize(kStackBytes);
    profiler_.add(std::move(one));
  }
  EXPECT_GE(profiler_.dropped(), added / 2);
  profiler_.attribute({process_of(7)}, [] {});
  EXPECT_EQ(profiler_.of_all({}).samples, added - profiler_.dropped())
      << "those that are not counted";
  const std::uint64_t dropped = profiler_.dropped();
  std::vector<CopySample> fresh = samples_of(7, 1);
  fresh[0].copy_class = CopyClass::fresh;
  fresh[0].stack.resize(CopyProfiler::kMostWaitingBytes);
  profiler_.add(std::move(fresh));
  EXPECT_EQ(profiler_.dropped(), dropped) << "a sample of new memory";
  profiler_.add(samples_of(7, 1));
  EXPECT_EQ(profiler_.dropped(), dropped) << "there is room again";
}

TEST_F(CopyProfilerTest, NewMemoryThatFoundNoRoomIsOfALineBothBeforeAndAfterOrOfNone) {
  std::vector<CopySample> fresh = samples_of(7, 2);
  std::uint64_t bytes = 0;
  for (CopySample& each : fresh) {
    each.copy_class = CopyClass::fresh;
    each.missed = 3;
    each.risen_bytes = bytes += 4 * kPageSize;
  }
  profiler_.add(std::move(fresh));
  profiler_.attribute({process_of(7)}, [] {});
  std::map<std::string, std::uint64_t> pages;
  for (const NewCause& each : profiler_.new_memory({{7, {8, true}}}).causes)
    pages[name_of(each.cause)] = each.estimated_copies;
  EXPECT_EQ(pages, (std::map<std::string, std::uint64_t>{{"own data", 5}, {"unknown", 3}}));
}

// Each is sampled once in many, and some never.
TEST_F(CopyProfilerTest, CopiesOfManyProcessesWithFewSamplesAreEstimatedTogether) {
  CopiedPages copies;
  for (std::uint64_t id = 1; id <= 100; ++id) copies[id] = 20;
  profiler_.add(samples_of(7, 1));
  profiler_.add(samples_of(8, 3));
  profiler_.attribute({process_of(7), process_of(8)}, [] {});
  const SampledCopies all = profiler_.of_all(copies);
  ASSERT_EQ(all.sites.size(), 1U);
  EXPECT_EQ(all.sites[0].estimated_copies, 2000U);
  EXPECT_EQ(profiler_.of(7, copies).sampled.sites[0].estimated_copies, 20U)
      << "of itself what it copied";
}

// Of the first process most samples were lost: each stands for more copies than the other's.
TEST_F(CopyProfilerTest, WhatCopiedMoreComesFirstThoughOfFewerSamples) {
  std::vector<CopySample> by_system_call = samples_of(8, 64);
  for (CopySample& each : by_system_call) each.user_mode = false;
  profiler_.add(samples_of(7, 32));
  profiler_.add(by_system_call);
  profiler_.attribute({process_of(7), process_of(8)}, [] {});
  const SampledCopies all = profiler_.of_all({{7, 64'000}, {8, 6'400}});
  ASSERT_EQ(all.sites.size(), 2U);
  EXPECT_EQ(all.sites[0].estimated_copies, 64'000U);
  EXPECT_EQ(all.sites[1].estimated_copies, 6'400U);
}

// A sample of a thread of Python, in one process.
CopySample python_sample(std::uint64_t process_id, const std::string& function) {
  CopySample sample;
  sample.process_id = process_id;
  auto code = std::make_shared<PythonCode>();
  *code = {function, "/app/pool.py", 4, {0x81, 0x00}};
  sample.python = {{std::move(code), 1, true}};
  return sample;
}

TEST_F(CopyProfilerTest, TheSiteOfAPythonThreadIsItsLine) {
  for (int i = 0; i < 3; ++i) profiler_.add({python_sample(7, "total")});
  profiler_.add({python_sample(7, "load")});
  profiler_.attribute({process_}, [] {});
  const SampledCopies sampled = profiler_.of(7, {{7, 400}}).sampled;
  ASSERT_THAT(sampled.sites, SizeIs(2)) << "one for each line, not for each code object";
  EXPECT_EQ(python_text(sampled.sites[0].frames.back()), "total (pool.py:4)");
  EXPECT_EQ(sampled.sites[0].estimated_copies, 300U);
  EXPECT_FALSE(sampled.sites[0].truncated) << "what called Python is not missed";
  ASSERT_THAT(sampled.stacks, SizeIs(2));
  EXPECT_EQ(sampled.stacks[0].folded, "total (pool.py:4)");
  EXPECT_EQ(sampled.python_unread, 0U);
}

TEST_F(CopyProfilerTest, PythonFramesThatCouldNotBeReadAreCounted) {
  CopySample nothing = python_sample(7, "total");
  nothing.python.clear();
  nothing.is_python_cut = true;
  CopySample part = python_sample(7, "total");
  part.is_python_cut = true;
  CopySample unknown = python_sample(7, "total");
  unknown.python[0].code = nullptr;
  CopySample deep = python_sample(7, "total");
  deep.python.resize(64, deep.python[0]);
  deep.is_python_cut = true;
  profiler_.add({nothing, part, unknown, deep, python_sample(7, "total")});
  profiler_.attribute({process_}, [] {});
  const SampledCopies all = profiler_.of_all({{7, 5}});
  EXPECT_EQ(all.python_unread, 3U) << "a deep stack is cut, but its line is known";
  std::uint64_t truncated = 0;
  for (const FoldedStack& stack : profiler_.of(7, {{7, 5}}).sampled.stacks)
    if (stack.folded.starts_with("[callers not seen]")) truncated += stack.samples;
  EXPECT_EQ(truncated, 3U);
}

TEST_F(CopyProfilerTest, TypesAreOfWritesToTheHeadsOfObjects) {
  const auto write_to = [this](const std::string& type, std::int32_t offset) {
    CopySample sample = python_sample(7, "total");
    sample.object_type = type;
    sample.object_offset = offset;
    profiler_.add({sample});
  };
  for (const std::int32_t offset : {-16, 0, 24}) write_to("str", offset);
  write_to("list", 0);
  write_to("array", 64);
  profiler_.add({python_sample(7, "total")});
  profiler_.attribute({process_}, [] {});
  const TypeCopies str{"str", 3, 300};
  const TypeCopies list{"list", 1, 100};
  EXPECT_THAT(profiler_.of(7, {{7, 600}}).sampled.types, ElementsAre(str, list));
  EXPECT_THAT(profiler_.of_all({{7, 600}}).types, ElementsAre(str, list));
  std::map<std::string, std::uint64_t> by_object;
  for (const FoldedStack& stack : profiler_.of(7, {{7, 600}}).sampled.stacks)
    by_object[stack.object] += stack.estimated_copies;
  const std::map<std::string, std::uint64_t> expected = {{"", 200}, {"list", 100}, {"str", 300}};
  EXPECT_EQ(by_object, expected);
}

TEST_F(CopyProfilerTest, LinesAndTypesOfEndedProcessesAreMerged) {
  for (const std::uint64_t id : {7U, 8U}) {
    CopySample sample = python_sample(id, "total");
    sample.object_type = "str";
    profiler_.add({sample});
  }
  profiler_.attribute({process_of(7), process_of(8)}, [] {});
  profiler_.merge(8, 7);
  const SampledCopies sum = profiler_.of(7, {{7, 20}}).sampled;
  ASSERT_THAT(sum.sites, SizeIs(1));
  EXPECT_EQ(sum.sites[0].samples, 2U);
  EXPECT_THAT(sum.types, ElementsAre(TypeCopies{"str", 2, 20}));
  ASSERT_THAT(sum.stacks, SizeIs(1));
  EXPECT_EQ(sum.stacks[0].object, "str");
}

}  // namespace
}  // namespace cowshed::cow
