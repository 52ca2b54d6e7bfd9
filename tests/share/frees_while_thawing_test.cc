#include <mutex>

#include <cowshed/share/arena_allocator.h>

#include "share.h"

// Threads that only allocate and deallocate, while the arena is frozen, thawed and frozen again.
namespace cowshed {
namespace {

struct Block {
  void* address;
  std::size_t size;
};

// How a thread takes blocks and gives them back.
constexpr int kRoutes = 3;
void* allocate(Arena& arena, int route, std::size_t size) {
  return route == 0   ? arena.allocate(size)
         : route == 1 ? arena.resource()->allocate(size, 8)
                      : ArenaAllocator<char>().allocate(size);
}
void deallocate(Arena& arena, int route, const Block& block) {
  switch (route) {
    case 0: return arena.deallocate(block.address, block.size, 8);
    case 1: return arena.resource()->deallocate(block.address, block.size, 8);
    default: ArenaAllocator<char>().deallocate(static_cast<char*>(block.address), block.size);
  }
}

class Churn {
 public:
  explicit Churn(unsigned seed) : seed_(seed) {}

  void run() {
    auto threads = begin_threads(kRoutes, [this](int route) { churn(route); });
    for (int generation = 1; generation <= 2; ++generation) {
      // Of the open part and another thread's: so each thread's first free has to wait for us.
      for (int i = 0; i < 60; ++i) put({arena_.allocate(1000), 1000});
      turn_ = generation;
      while (begun_ < generation * kRoutes) std::this_thread::yield();
      const auto frozen = generation == 1 ? arena_.freeze() : arena_.refreeze();
      EXPECT_TRUE(frozen) << frozen.error().message;
      const auto thawed = arena_.thaw();
      EXPECT_TRUE(thawed) << thawed.error().message;
    }
    turn_ = kStop;
    threads.clear();
    std::vector<void*> kept;
    for (const Block& block : blocks_) kept.push_back(block.address);
    const auto stats = arena_.stats();
    EXPECT_EQ(stats.live_allocations - stats.dropped_frees, kept.size());
    std::sort(kept.begin(), kept.end());
    EXPECT_EQ(std::adjacent_find(kept.begin(), kept.end()), kept.end()) << "one block given twice";
  }

 private:
  static constexpr int kStop = 3;

  void churn(int route) {
    const UseArena use(arena_);
    std::mt19937 random(seed_ + static_cast<unsigned>(route));
    for (int turn = 1;; ++turn) {
      while (turn_ < turn) std::this_thread::yield();
      ++begun_;
      if (turn_ == kStop) return;
      for (int step = 0; step < 40; ++step) {
        if (random() % 2 == 0) {
          const std::size_t size = 40 + random() % 3000;
          const Error error = refusal_of([&] { put({allocate(arena_, route, size), size}); });
          EXPECT_TRUE(error.message == "allocated" || error.code == ErrorCode::arena_frozen)
              << error.message;
        } else if (Block block{}; take(random(), block)) {
          deallocate(arena_, route, block);
        }
      }
    }
  }

  // Blocks that any thread may give back.
  void put(const Block& block) {
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
  }
  bool take(std::size_t index, Block& block) {
    const std::lock_guard lock(mutex_);
    if (blocks_.empty()) return false;
    std::swap(blocks_[index % blocks_.size()], blocks_.back());
    block = blocks_.back();
    blocks_.pop_back();
    return true;
  }

  unsigned seed_;
  Arena arena_ = make_arena(64_MiB, "index", false);
  std::mutex mutex_;
  std::vector<Block> blocks_;
  std::atomic<int> turn_ = 0;
  std::atomic<int> begun_ = 0;
};

TEST(FreesWhileThawing, AreCountedAndReachNoFrozenBlock) {
  SCOPED_TRACE("seed " + std::to_string(test::seed()));
  const int rounds = test::little_or(30, 10'000);
  for (int round = 0; round < rounds && !HasFailure(); ++round)
    Churn(test::seed() + 10 * static_cast<unsigned>(round)).run();
}

}  // namespace
}  // namespace cowshed
