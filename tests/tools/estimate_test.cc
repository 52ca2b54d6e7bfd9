#include <gtest/gtest.h>
#include <utility>

#include <cowshed/tools/cowtop/estimate.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

cow::ProcessCopies worker(std::uint64_t shared, std::uint64_t copied_pages) {
  static pid_t pid = 1000;
  cow::ProcessCopies process;
  process.pid = ++pid;
  process.ppid = 1;
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
  EXPECT_EQ(found->bytes_by_spawn, 303 * kMiB);
  EXPECT_TRUE(found->frozen.empty());
}

// Two servers of 43.5 MiB with a worker each, started by one shell.
TEST(Estimate, WorkersOfDifferentParentsShareDifferentMemory) {
  constexpr std::uint64_t kServer = 43 * kMiB + kMiB / 2;
  cow::Measurement measurement;
  for (int server = 0; server < 2; ++server) {
    cow::ProcessCopies parent = worker(kMiB / 10, 100);
    parent.execs = 1;
    cow::ProcessCopies child = worker(kServer, 20 * 256);
    child.ppid = parent.pid;
    measurement.processes.push_back(parent);
    measurement.processes.push_back(child);
  }
  const auto found = estimate(measurement);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->workers, 2);
  EXPECT_EQ(found->shared_bytes, 2 * kServer);
  EXPECT_EQ(found->bytes_with_workers(1), 2 * kServer + 40 * kMiB);
  EXPECT_EQ(found->bytes_by_spawn, 4 * kServer);
}

// What a worker shares with its own worker holds what it shares with its parent.
TEST(Estimate, AWorkersWorkerSharesItsParentsMemoryOnce) {
  cow::Measurement measurement;
  cow::ProcessCopies first = worker(40 * kMiB, 256);
  cow::ProcessCopies second = worker(60 * kMiB, 256);
  second.ppid = first.pid;
  measurement.processes = {first, second};
  const auto found = estimate(measurement);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->workers, 2);
  EXPECT_EQ(found->shared_bytes, 60 * kMiB);
  EXPECT_EQ(found->bytes_by_spawn, 160 * kMiB);
}

TEST(Estimate, OfWorkersThatTookEachOthersPlaces) {
  cow::Measurement measurement;
  measurement.exact = true;
  for (std::uint64_t generation = 0; generation < 20; ++generation) {
    for (int slot = 0; slot < 2; ++slot) {
      cow::ProcessCopies process = worker(64 * kMiB, 8192);
      process.objects = {{"index", "Index", "arena", 100}};
      process.start_ns = 1000 * generation;
      process.end_ns = 1000 * (generation + 1);
      measurement.processes.push_back(process);
    }
  }
  const auto found = estimate(measurement);
  EXPECT_EQ(found->workers, 2);
  EXPECT_EQ(found->bytes_with_workers(1), 128 * kMiB);
  EXPECT_EQ(found->bytes_with_workers(10), 704 * kMiB);
  EXPECT_EQ(found->bytes_by_spawn, 192 * kMiB);
  EXPECT_EQ(found->frozen.at(0).bytes, 200 * cow::kPageSize);
}

TEST(Estimate, OfThoseThatCopiedMostWhereAsManyLivedAtOtherTimes) {
  cow::Measurement measurement;
  measurement.exact = true;
  measurement.taken_ns = 300;
  measurement.processes = {worker(kMiB, 1), worker(kMiB, 2), worker(kMiB, 4)};
  measurement.processes[0].end_ns = 100;
  measurement.processes[1].start_ns = 100;
  measurement.processes[1].end_ns = 200;
  measurement.processes[2].start_ns = 200;
  EXPECT_EQ(estimate(measurement)->workers, 1);
  EXPECT_EQ(estimate(measurement)->copied_bytes, 4 * cow::kPageSize);
}

TEST(Estimate, EndsThatAreSeenLateMakeNoMoreWorkers) {
  constexpr std::uint64_t kMs = 1'000'000;
  cow::Measurement measurement;
  measurement.processes = {worker(kMiB, 1), worker(kMiB, 1)};
  measurement.processes[0].memory = {0, 0, 493 * kMs};
  measurement.processes[0].end_ns = 513 * kMs;
  measurement.processes[1].start_ns = 490 * kMs;  // at 498
  measurement.processes[1].memory = {0, 0, 990 * kMs};
  measurement.processes[1].end_ns = 1010 * kMs;
  EXPECT_EQ(estimate(measurement)->workers, 1);
}

cow::Measurement with_sum(std::uint64_t end_ns) {
  cow::Measurement measurement;
  measurement.exact = true;
  measurement.processes = {worker(100 * kMiB, 256), worker(100 * kMiB, 256),
                           worker(1800 * kMiB, 18 * 128)};
  for (cow::ProcessCopies& process : measurement.processes) process.end_ns = 1000;
  measurement.processes.back().processes = 18;
  measurement.processes.back().end_ns = end_ns;
  return measurement;
}

TEST(Estimate, OfThoseThatAreAddedUp) {
  // After each other, and all at once.
  const auto recycled = estimate(with_sum(10'000));
  EXPECT_EQ(recycled->workers, 2);
  EXPECT_EQ(recycled->copied_bytes, 2 * kMiB);
  const auto together = estimate(with_sum(1000));
  EXPECT_EQ(together->workers, 20);
  EXPECT_EQ(together->shared_bytes, 100 * kMiB);
  EXPECT_EQ(together->copied_bytes, 11 * kMiB);
  // Nothing is known of how long they lived.
  cow::Measurement alone = with_sum(1000);
  alone.processes.erase(alone.processes.begin(), alone.processes.begin() + 2);
  EXPECT_FALSE(estimate(alone));
}

using Frozen = std::vector<std::pair<std::string, std::uint64_t>>;

Frozen frozen(const cow::Measurement& measurement) {
  const auto found = estimate(measurement);
  Frozen result;
  for (const auto& [name, bytes] : found->frozen) result.emplace_back(name, bytes);
  return result;
}

TEST(Estimate, OfWhatIsWrittenToMost) {
  cow::Measurement measurement;
  measurement.processes = {worker(100 * kMiB, 256), worker(100 * kMiB, 256)};
  for (cow::ProcessCopies& process : measurement.processes) {
    process.sampled.emplace().mappings = {{"[heap]", 8, 200}, {"anonymous", 2, 56}};
  }
  EXPECT_EQ(frozen(measurement), (Frozen{{"mapping '[heap]'", 400 * cow::kPageSize},
                                         {"mapping 'anonymous'", 112 * cow::kPageSize}}));
  measurement.processes[0].objects = {{"index", "Index", "words", 120},
                                      {"cold", "Cold", "words", 0}};
  EXPECT_EQ(frozen(measurement), (Frozen{{"mapping '[heap]'", 400 * cow::kPageSize},
                                         {"object 'index' of arena 'words'", 120 * cow::kPageSize},
                                         {"mapping 'anonymous'", 112 * cow::kPageSize}}));
}

TEST(Estimate, NothingThatIsWrittenToCountsTwice) {
  cow::Measurement measurement;
  measurement.processes = {worker(100 * kMiB, 256)};
  cow::ProcessCopies& process = measurement.processes[0];
  process.objects = {
      {"", "Index", "words", 30}, {"index", "Index", "words", 20}, {"index", "Index", "names", 10}};
  process.sampled.emplace().mappings = {{"arena words", 3, 60}, {"arena names", 1, 10}};
  EXPECT_EQ(frozen(measurement),
            (Frozen{{"object 'Index' of arena 'words'", 30 * cow::kPageSize},
                    {"object 'index' of arena 'words'", 20 * cow::kPageSize},
                    {"object 'index' of arena 'names'", 10 * cow::kPageSize}}));
  process.objects = {{"index", "Index", "words", 0}};
  EXPECT_EQ(frozen(measurement), (Frozen{{"mapping 'arena words'", 60 * cow::kPageSize},
                                         {"mapping 'arena names'", 10 * cow::kPageSize}}));
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
