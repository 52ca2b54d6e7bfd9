#include <gtest/gtest.h>

#include <cowshed/tools/cowtop/estimate.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

cow::ProcessCopies worker(std::uint64_t shared, std::uint64_t copied_pages) {
  cow::ProcessCopies process;
  process.role = cow::Role::child;
  process.shared_at_fork_bytes = shared;
  process.copied_anon_pages = copied_pages;
  process.copied_file_pages = 0;
  return process;
}

TEST(Estimate, OfMoreWorkersAndOfSpawn) {
  cow::Measurement measurement;
  cow::ProcessCopies root = worker(0, 1000);
  root.role = cow::Role::root;
  measurement.processes = {root, worker(100 * kMiB, 256), worker(101 * kMiB, 512),
                           worker(kMiB, 100)};  // a subshell
  const auto found = estimate(measurement);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->workers, 2);
  EXPECT_EQ(found->shared_bytes, 101 * kMiB);
  EXPECT_EQ(found->copied_bytes, 3 * kMiB);
  EXPECT_EQ(found->bytes_with_workers(1), 104 * kMiB);
  EXPECT_EQ(found->bytes_with_workers(10), 131 * kMiB);
  EXPECT_EQ(found->bytes_by_spawn(), 303 * kMiB);
  EXPECT_TRUE(found->frozen.empty());
}

TEST(Estimate, OfWhatIsWrittenToMost) {
  cow::Measurement measurement;
  measurement.processes = {worker(100 * kMiB, 256), worker(100 * kMiB, 256)};
  for (cow::ProcessCopies& process : measurement.processes) {
    process.sampled.emplace().mappings = {{"[heap]", 8, 200}, {"anonymous", 2, 56}};
  }
  const auto by_mapping = estimate(measurement);
  ASSERT_EQ(by_mapping->frozen.size(), 2);
  EXPECT_EQ(by_mapping->frozen[0].name, "mapping '[heap]'");
  EXPECT_EQ(by_mapping->frozen[0].bytes, 400 * cow::kPageSize);
  measurement.processes[0].objects = {{"index", "Index", "arena", 30},
                                      {"cold", "Cold", "arena", 0}};
  const auto by_object = estimate(measurement);
  ASSERT_EQ(by_object->frozen.size(), 1);
  EXPECT_EQ(by_object->frozen[0].name, "object 'index'");
}

TEST(Estimate, WhoIsNoWorker) {
  cow::Measurement measurement;
  EXPECT_FALSE(estimate(measurement));
  cow::ProcessCopies executed = worker(kMiB, 1);
  executed.execs = 1;
  cow::ProcessCopies vforked = worker(kMiB, 1);
  vforked.shares_memory = true;
  cow::ProcessCopies not_known = worker(kMiB, 1);
  not_known.copied_file_pages.reset();
  measurement.processes = {executed, vforked, not_known, worker(0, 1)};
  EXPECT_FALSE(estimate(measurement));
}

}  // namespace
}  // namespace cowshed::cowtop
