#include <gtest/gtest.h>

#include <cowshed/cow/copy_sampler.h>

namespace cowshed::cow {
namespace {

std::vector<CopySample> samples_of(std::uint64_t process_id, std::size_t number) {
  CopySample sample;
  sample.process_id = process_id;
  return std::vector<CopySample>(number, sample);
}

// Whoever empties the buffer of samples gets his turn in between, and what he adds is not lost.
TEST(CopySampler, TakesMoreWhileItAttributes) {
  CopySampler sampler{ProcFiles()};
  ProcessCounts process;
  process.id = 7;
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

TEST(CopySampler, KeepsThoseOfAProcessThatItDoesNotKnowYet) {
  CopySampler sampler{ProcFiles()};
  ProcessCounts process;
  process.id = 7;
  sampler.add(samples_of(process.id, 5));
  sampler.attribute({}, [] {});
  EXPECT_EQ(sampler.of_all({}).samples, 5U) << "in the report they are at once";
  EXPECT_EQ(sampler.of_all({}).samples, 5U) << "and once";
}

}  // namespace
}  // namespace cowshed::cow
