#include "scope_blocks.h"

// Many threads that take memory of one arena at the same time.  Kernel calls that give memory can
// be made slow: what happens under one lock then adds up on any number of CPUs.

namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int> slowness_ms = 0;
std::atomic<std::int64_t> spent_ns = 0;  // in slow calls, by all threads

void be_slow() {
  const auto begin = Clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(slowness_ms));
  spent_ns += std::chrono::nanoseconds(Clock::now() - begin).count();
}

class SlowMemory {
 public:
  explicit SlowMemory(int ms) { slowness_ms = ms; }
  ~SlowMemory() { slowness_ms = 0; }
  SlowMemory(const SlowMemory&) = delete;
  SlowMemory& operator=(const SlowMemory&) = delete;
};

}  // namespace

extern "C" {
int madvise(void* begin, std::size_t size, int advice) noexcept {
  constexpr int kCollapse = 25;
  if (advice == kCollapse) be_slow();
  return static_cast<int>(syscall(SYS_madvise, begin, size, advice));
}
int fallocate(int fd, int mode, off_t offset, off_t size) {
  be_slow();
  return static_cast<int>(syscall(SYS_fallocate, fd, mode, offset, size));
}
}

namespace cowshed {
namespace {

constexpr int kThreads = 8;
constexpr std::size_t kBlock = 64_KiB;

// Eight threads take 128 MiB by slow calls.  `enter(arena)` is kept meanwhile.  On average, five of
// them must be in the kernel.
template <class Enter, class Allocate>
void expect_side_by_side(const Enter& enter, const Allocate& allocate) {
  const SlowMemory slow(60);
  Arena arena = make_arena(256_MiB);
  spent_ns = 0;
  const auto begin = Clock::now();
  begin_threads(kThreads, [&](int) {
    [[maybe_unused]] const auto entered = enter(arena);
    for (std::size_t taken = 0; taken < 128_MiB / kThreads; taken += kBlock)
      if (!arena.contains(allocate(arena))) throw std::runtime_error("elsewhere");
  }).clear();
  const std::chrono::nanoseconds passed = Clock::now() - begin;
  EXPECT_GT(static_cast<double>(spent_ns) / static_cast<double>(passed.count()), 4);
}

TEST(ArenaThreads, TakeMemorySideBySide) {
  expect_side_by_side([](const Arena&) { return 0; },
                      [](Arena& arena) { return arena.allocate(kBlock); });
}

TEST(ArenaThreads, TakeMemoryAfterAnotherArenaWasFrozenMeanwhile) {
  Arena other = make_arena(16_MiB);
  EXPECT_NE(other.allocate(kBlock), nullptr);
  Arena arena = make_arena(256_MiB);
  {
    const SlowMemory slow(60);
    const std::int64_t before = spent_ns;
    const std::jthread taker([&] {
      for (int i = 0; i < 8; ++i) EXPECT_NE(arena.allocate(2_MiB), nullptr);
    });
    while (spent_ns == before) std::this_thread::yield();
    EXPECT_TRUE(other.freeze());
  }
  EXPECT_NE(arena.allocate(32_MiB), nullptr);  // it looked for room for ever
}

#ifdef COWSHED_WITH_MALLOC
TEST(ArenaThreads, TakeMemorySideBySideInScopes) {
  expect_side_by_side([](const Arena& arena) { return value_of(ArenaScope::enter(arena)); },
                      [](const Arena&) { return std::malloc(kBlock); });
}

#endif

// A mix of sizes from 16 bytes to 8 KiB, the same for any number of threads.
std::size_t frozen_bytes_filled_by(int threads) {
  Arena arena = make_arena(1_GiB);
  begin_threads(threads, [&](int thread) {
    std::mt19937 random(static_cast<unsigned>(thread));
    std::size_t taken = 0;
    while (taken < 256_MiB / static_cast<unsigned>(threads)) {
      const std::size_t size = 16 + random() % (std::size_t{16} << random() % 10);
      (void)arena.allocate(size);
      taken += size;
    }
  }).clear();
  EXPECT_TRUE(arena.freeze());
  const auto stats = arena.stats();
  return stats.huge_page_bytes + stats.small_page_bytes;
}

TEST(ArenaThreads, MakeAnArenaHardlyLarger) {
  const auto one = static_cast<double>(frozen_bytes_filled_by(1));
  constexpr double kOfSlabs = 0.01 * arch::kLargestPage / 4_KiB;  // each has a page or more
  EXPECT_LT(static_cast<double>(frozen_bytes_filled_by(kThreads)) / one, 1.01 + kOfSlabs);
}

TEST(ArenaThreads, LeaveOnePieceWhenAllIsFree) {
  Arena arena = make_arena(64_MiB);
  for (int round = 0; round < 3; ++round) {
    begin_threads(kThreads, [&](int thread) {
      std::mt19937 random(static_cast<unsigned>(thread));
      std::vector<std::pair<void*, std::size_t>> blocks;
      try {
        for (;;) {
          const std::size_t size = 16 + random() % 100'000;
          blocks.emplace_back(arena.allocate(size), size);
        }
      } catch (const std::bad_alloc&) {
      }
      for (const auto& [block, size] : blocks) arena.deallocate(block, size);
    }).clear();
    void* whole = arena.allocate(64_MiB);
    arena.deallocate(whole, 64_MiB);
  }
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

// Of what threads wrote until the freeze stopped them nothing is lost, and nothing is half there.
TEST(ArenaThreads, AFreezeWaitsForThoseThatTakeMemory) {
  const SlowMemory slow(5);
  for (int round = 0; round < 3; ++round) {
    Arena arena = make_arena(256_MiB);
    std::mutex mutex;
    std::vector<unsigned char*> blocks;
    auto threads = begin_threads(kThreads, [&](int) {
      try {
        for (;;) {
          auto* block = static_cast<unsigned char*>(arena.allocate(kBlock));
          const std::lock_guard lock(mutex);
          blocks.push_back(block);
        }
      } catch (const ArenaBadAlloc&) {
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    const auto child = run_in_child(
        [&] { return code_of(arena.freeze()) == ErrorCode::not_inherited ? "fine" : "?"; });
    EXPECT_EQ(child.said, "fine");
    EXPECT_TRUE(arena.freeze());
    threads.clear();
    EXPECT_EQ(arena.stats().live_allocations, blocks.size());
    EXPECT_TRUE(std::ranges::all_of(blocks, [](const unsigned char* block) {
      return std::count(block, block + kBlock, 0) == static_cast<std::ptrdiff_t>(kBlock);
    }));
  }
}

TEST(ArenaThreads, WhatOthersFilledAndIsFreedServesEachThread) {
  Arena arena = make_arena(16_MiB);
  std::array<std::vector<void*>, 4> blocks;
  constexpr std::size_t kSize = 64;
  (void)begin_threads(blocks.size(), [&](std::size_t self) {
    (void)test::refusal_of([&] {
      for (;;) blocks[self].push_back(arena.allocate(kSize));
    });
  });
  std::size_t freed = 0;
  for (const auto& theirs : blocks)
    for (std::size_t i = 0; i < theirs.size(); i += 2, ++freed) arena.deallocate(theirs[i], kSize);
  std::size_t again = 0;
  (void)test::refusal_of([&] {
    for (;; ++again) (void)arena.allocate(kSize);
  });
  EXPECT_GE(again, freed);
}

}  // namespace
}  // namespace cowshed
