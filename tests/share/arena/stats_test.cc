#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

constexpr std::size_t kRange = 2_MiB;

constexpr std::size_t kLarge = test::sized<std::size_t>(1_GiB, 128_MiB);

// One block, all of whose 2 MiB ranges hold data.
char* fill_ranges(Arena& arena, std::size_t bytes) {
  auto* block = static_cast<char*>(arena.allocate(bytes, kRange));
  for (std::size_t offset = 0; offset < bytes; offset += 4096)
    block[offset] = static_cast<char>(offset / 4096 % 127);
  return block;
}

bool is_filled(const char* block, std::size_t bytes) {
  for (std::size_t offset = 0; offset < bytes; offset += 4096)
    if (block[offset] != static_cast<char>(offset / 4096 % 127)) return false;
  return true;
}

// Bytes of the arena that this process maps in 2 MiB pages, as the kernel says.
std::size_t mapped_huge(const Arena& arena) {
  return test::smaps_kib("ShmemPmdMapped", arena.base(), arena.stats().capacity) * 1024;
}

long faults_of_reading(const char* block, std::size_t bytes) {
  const long before = test::page_faults();
  for (std::size_t offset = 0; offset < bytes; offset += 4096)
    (void)*static_cast<const volatile char*>(block + offset);
  return test::page_faults() - before;
}

TEST(ArenaStats, CountsAreExact) {
  Arena arena = make_arena(256_MiB);
  ArenaStats stats = arena.stats();
  EXPECT_EQ(stats.capacity, 256_MiB);
  EXPECT_EQ(stats.used, 0U);
  EXPECT_EQ(stats.live_bytes + stats.hole_bytes + stats.huge_page_bytes, 0U);
  std::vector<void*> blocks;
  for (int i = 0; i < 1000; ++i) blocks.push_back(arena.allocate(48));
  for (int i = 0; i < 10; ++i) (void)arena.allocate(100);  // of jemalloc's size class 112
  (void)arena.allocate(10_MiB, kRange);
  for (int i = 0; i < 300; ++i) {
    arena.deallocate(blocks.back(), 48);
    blocks.pop_back();
  }
  constexpr std::size_t kLive = std::size_t{700} * 48 + std::size_t{10} * 112 + 10_MiB;
  stats = arena.stats();
  EXPECT_EQ(stats.live_allocations, 711U);
  EXPECT_EQ(stats.live_bytes, kLive);
  EXPECT_EQ(stats.hole_bytes + stats.live_bytes, stats.used);
  EXPECT_EQ(stats.huge_page_bytes + stats.small_page_bytes, stats.used);
  EXPECT_EQ(stats.dropped_frees, 0U);
  EXPECT_FALSE(stats.frozen);
  ASSERT_TRUE(arena.freeze());
  for (void* block : blocks) arena.deallocate(block, 48);
  stats = arena.stats();
  EXPECT_EQ(stats.live_allocations, 711U);
  EXPECT_EQ(stats.live_bytes, kLive);
  EXPECT_EQ(stats.hole_bytes + stats.live_bytes + stats.returned_bytes, stats.used);
  EXPECT_EQ(stats.huge_page_bytes + stats.small_page_bytes + stats.returned_bytes, stats.used);
  EXPECT_EQ(stats.dropped_frees, 700U);
  EXPECT_TRUE(stats.frozen);
}

// What stats() says of huge pages is what the kernel says.
TEST(ArenaStats, HugePagesAreThere) {
  if (test::has_no_huge_pages()) GTEST_SKIP() << "this kernel cannot collapse memfd pages";
  Arena arena = make_arena(256_MiB);
  char* block = fill_ranges(arena, 100_MiB);
  ASSERT_TRUE(arena.freeze());
  ASSERT_TRUE(arena.prefault());
  const ArenaStats stats = arena.stats();
  EXPECT_GE(stats.huge_page_bytes, 96_MiB);
  EXPECT_EQ(mapped_huge(arena), stats.huge_page_bytes);
  EXPECT_TRUE(is_filled(block, 100_MiB));
}

// Is told `total` at the end, after so many calls.
std::size_t collapse(Arena& arena, std::size_t total, std::size_t& calls) {
  std::size_t last = 0;
  const std::size_t huge = value_of(arena.collapse([&](std::size_t done, std::size_t of) {
    EXPECT_EQ(of, total);
    EXPECT_GE(done, std::exchange(last, done));
    ++calls;
  }));
  EXPECT_EQ(last, total);
  return huge;
}

TEST(Collapse, BeforeTheFreeze) {
  Arena arena = make_arena(kLarge * 2, "index", false);
  char* block = fill_ranges(arena, kLarge);
  const ArenaStats before = arena.stats();
  EXPECT_EQ(before.huge_page_bytes, 0U);
  EXPECT_EQ(before.small_page_bytes, before.used);
  EXPECT_EQ(before.huge_page_error, 0);
  std::size_t calls = 0;
  const std::size_t huge = collapse(arena, before.used, calls);
  EXPECT_GE(calls, kLarge / 64_MiB);
  EXPECT_TRUE(is_filled(block, kLarge));
  if (huge == 0) {
    EXPECT_NE(arena.stats().huge_page_error, 0);
    GTEST_SKIP() << "this kernel cannot collapse memfd pages";
  }
  EXPECT_EQ(huge, before.used);
  ASSERT_TRUE(arena.freeze());
  EXPECT_EQ(arena.stats().huge_page_bytes, arena.stats().used);
  ASSERT_TRUE(arena.prefault());
  EXPECT_EQ(mapped_huge(arena), arena.stats().used);
}

TEST(Collapse, AfterTheFreeze) {
  for (const FreezeMode mode : {FreezeMode::strict, FreezeMode::lenient}) {
    Arena arena = make_arena(kLarge * 2, "index", false);
    char* block = fill_ranges(arena, kLarge);
    std::size_t calls = 0;
    ASSERT_TRUE(arena.freeze({.mode = mode, .progress = [&](auto, auto) { ++calls; }}));
    EXPECT_EQ(calls, 0U);  // nothing is collapsed
    const ArenaStats frozen = arena.stats();
    EXPECT_EQ(frozen.huge_page_bytes, 0U);
    EXPECT_EQ(frozen.small_page_bytes + frozen.returned_bytes, frozen.used);
    const std::size_t huge = value_of(arena.collapse([&](auto, auto) { ++calls; }));
    EXPECT_GE(calls, kLarge / 64_MiB);
    EXPECT_TRUE(is_filled(block, kLarge));
    EXPECT_EQ(*arena.private_bytes(), 0U);
    if (huge == 0) GTEST_SKIP() << "this kernel cannot collapse memfd pages";
    EXPECT_EQ(huge, frozen.used - frozen.returned_bytes);
    EXPECT_EQ(arena.stats().huge_page_bytes, huge);
    EXPECT_EQ(arena.stats().small_page_bytes, 0U);
    const auto child = run_in_child([&] {
      const bool mapped = arena.prefault().has_value();
      return std::to_string(mapped && mapped_huge(arena) == huge) +
             std::to_string(is_filled(block, kLarge));
    });
    EXPECT_EQ(child.said, "11");
  }
}

// Ranges in which something was written privately stay private, and are collapsed by refreeze().
TEST(Collapse, OfWhatWasWrittenTo) {
  Arena arena = make_arena(64_MiB, "index", false);
  char* block = fill_ranges(arena, 16_MiB);
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  block[5_MiB + 1] = 'x';
  ASSERT_TRUE(arena.collapse());
  EXPECT_EQ(*arena.private_bytes(), 4096U);
  EXPECT_EQ(block[5_MiB + 1], 'x');
  EXPECT_TRUE(is_filled(block, 16_MiB));
}

TEST(Collapse, OfAThawedArena) {
  Arena arena = make_arena(128_MiB, "index", false);
  char* old_block = fill_ranges(arena, 16_MiB);
  ASSERT_TRUE(arena.freeze());
  const std::size_t old_bytes = arena.stats().small_page_bytes;
  ASSERT_TRUE(arena.thaw());
  char* new_block = fill_ranges(arena, 20_MiB);
  const std::size_t all = arena.stats().small_page_bytes;
  EXPECT_GE(all, old_bytes + 20_MiB);
  std::size_t calls = 0;
  const std::size_t huge = collapse(arena, all, calls);
  ASSERT_TRUE(arena.refreeze());
  EXPECT_TRUE(is_filled(old_block, 16_MiB) && is_filled(new_block, 20_MiB));
  if (huge == 0) GTEST_SKIP() << "this kernel cannot collapse memfd pages";
  EXPECT_EQ(huge, all);
}

TEST(Prefault, AfterwardsReadingFaultsNoMore) {
  if (test::kThreadSanitizer)
    GTEST_SKIP() << "ThreadSanitizer's own memory faults at every first read";
  for (const bool huge_pages : {true, false}) {
    Arena arena = make_arena(kLarge * 2, "index", huge_pages);
    const char* block = fill_ranges(arena, kLarge);
    ASSERT_TRUE(arena.freeze());
    const std::size_t missed = arena.stats().small_page_bytes / kRange;
    const auto without = run_in_child([&] {
      (void)faults_of_reading(block, 4096);  // the pages of this code
      return std::to_string(faults_of_reading(block, kLarge));
    });
    const auto with = run_in_child([&] {
      if (!arena.prefault()) return std::string("999999");
      (void)faults_of_reading(block, 4096);
      return std::to_string(faults_of_reading(block, kLarge));
    });
    EXPECT_LE(std::stoul(with.said), 8U) << with.said;
    if (missed == 0) EXPECT_LE(std::stoul(without.said), kLarge / kRange + 2);
    EXPECT_GE(std::stoul(without.said), kLarge / kRange - 1);  // the detector works
  }
}

// Also not into a hole, for which that would take memory.
TEST(Prefault, TakesNoMemoryForHoles) {
  Arena arena = make_arena(256_MiB);
  char* first = fill_ranges(arena, 32_MiB);
  char* second = fill_ranges(arena, 32_MiB);
  arena.deallocate(std::min(first, second), 32_MiB, kRange);
  ASSERT_TRUE(arena.freeze());
  const ArenaStats stats = arena.stats();
  ASSERT_GE(stats.returned_bytes, 30_MiB);
  const auto child = run_in_child([&] {
    if (!arena.prefault()) return std::string("failed");
    return std::to_string(test::smaps_kib("Rss", arena.base(), stats.capacity) * 1024);
  });
  EXPECT_EQ(child.said, std::to_string(stats.used - stats.returned_bytes));
}

TEST(PrivateBytes, AreExact) {
  for (const bool huge_pages : {true, false}) {
    Arena arena = make_arena(128_MiB, "index", huge_pages);
    char* block = fill_ranges(arena, 64_MiB);
    ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
    const auto child = run_in_child([&]() -> std::string {
      std::size_t written = 0;
      for (std::size_t offset = 0; offset < 64_MiB; offset += 333 * 4_KiB + 7) {
        block[offset] = 'x';
        block[offset + 1] = 'y';
        ++written;
        const auto bytes = arena.private_bytes();
        if (!bytes || *bytes != written * 4096) return "not exact after " + std::to_string(written);
      }
      // Neighbours, and a whole range.
      const std::size_t before = test::own_pages(arena.base(), arena.stats().used);
      std::memset(block + 2 * kRange, 'z', kRange + 3 * 4_KiB);
      const std::size_t after = test::own_pages(arena.base(), arena.stats().used);
      if (after < before + 500 || *arena.private_bytes() != after * 4096)
        return "not exact over a whole range";
      return written > 40 ? "exact" : "few";
    });
    EXPECT_EQ(child.said, "exact");
    EXPECT_EQ(*arena.private_bytes(), 0U);
  }
}

// Each thread has exactly 100 blocks, or one less for a moment.
TEST(ArenaStats, AreExactWhileThreadsAllocate) {
  constexpr std::size_t kBlocks = 100;
  constexpr std::size_t kThreads = 3;
  Arena arena = make_arena(256_MiB);
  std::atomic<bool> stop = false;
  std::atomic<std::size_t> ready = 0;
  auto threads = begin_threads(kThreads, [&](std::size_t) {
    std::array<void*, kBlocks> blocks{};
    for (void*& block : blocks) block = arena.allocate(64);
    ++ready;
    for (std::size_t i = 0; !stop; i = (i + 1) % kBlocks) {
      arena.deallocate(blocks[i], 64);
      blocks[i] = arena.allocate(64);
    }
  });
  while (ready < kThreads) std::this_thread::yield();
  for (int i = 0; i < 300; ++i) {
    const ArenaStats stats = arena.stats();
    EXPECT_LE(stats.live_allocations, kThreads * kBlocks);
    EXPECT_GE(stats.live_allocations, kThreads * (kBlocks - 1));
    EXPECT_EQ(stats.live_bytes, stats.live_allocations * 64);
    if (i % 30 == 0) EXPECT_TRUE(arena.collapse());
  }
  stop = true;
  threads.clear();
  EXPECT_EQ(arena.stats().live_allocations, kThreads * kBlocks);
}

}  // namespace
}  // namespace cowshed
