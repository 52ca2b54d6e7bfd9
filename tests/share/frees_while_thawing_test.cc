#include <algorithm>
#include <array>
#include <atomic>
#include <gtest/gtest.h>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_allocator.h>
#include <cowshed/tests/support/scale.h>

#include "make_arena.h"

// Threads that only allocate and deallocate, while the arena is frozen, thawed and frozen again.
namespace cowshed {
namespace {

using test::make_arena;

// How a thread takes blocks and gives them back.
enum class Route { arena, resource, allocator };
constexpr std::array kRoutes = {Route::arena, Route::resource, Route::allocator};

struct Block {
  void* address;
  std::size_t size;
};

// Blocks that any thread may give back.
class Pool {
 public:
  void put(const Block& block) {
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
  }
  bool take(std::size_t index, Block& block) {
    const std::lock_guard lock(mutex_);
    if (blocks_.empty()) {
      return false;
    }
    std::swap(blocks_[index % blocks_.size()], blocks_.back());
    block = blocks_.back();
    blocks_.pop_back();
    return true;
  }
  const std::vector<Block>& blocks() const { return blocks_; }  // when the threads have ended

 private:
  std::mutex mutex_;
  std::vector<Block> blocks_;
};

class Churner {
 public:
  Churner(Arena& arena, Pool& pool, Route route, unsigned seed)
      : arena_(arena), pool_(pool), route_(route), random_(seed), thread_([this] { run(); }) {}

  // Makes some more steps, and returns when it has begun to.
  void begin_steps() {
    const int turn = turn_.load();
    turn_ = turn + 1;
    turn_.notify_one();
    begun_.wait(turn);
  }
  void stop() {
    turn_ = kStop;
    turn_.notify_one();
    thread_.join();
  }

 private:
  static constexpr int kStop = -1;

  void run() {
    const UseArena use(arena_);
    for (int turn = 0;; ++turn) {
      turn_.wait(turn);
      begun_ = turn + 1;
      begun_.notify_one();
      if (turn_ == kStop) {
        return;
      }
      for (int step = 0; step < 40; ++step) {
        if (random_() % 2 == 0) {
          take(40 + random_() % 3000);
        } else {
          give();
        }
      }
    }
  }

  void take(std::size_t size) {
    try {
      pool_.put({allocate(size), size});
    } catch (const ArenaBadAlloc& failure) {
      EXPECT_EQ(failure.error().code, ErrorCode::arena_frozen) << failure.what();
    }
  }

  void* allocate(std::size_t size) {
    switch (route_) {
      case Route::arena: return arena_.allocate(size);
      case Route::resource: return arena_.resource()->allocate(size, 8);
      case Route::allocator: return ArenaAllocator<char>().allocate(size);
    }
    return nullptr;
  }

  void give() {
    Block block{};
    if (!pool_.take(random_(), block)) {
      return;
    }
    switch (route_) {
      case Route::arena: arena_.deallocate(block.address, block.size, 8); break;
      case Route::resource: arena_.resource()->deallocate(block.address, block.size, 8); break;
      case Route::allocator:
        ArenaAllocator<char>().deallocate(static_cast<char*>(block.address), block.size);
        break;
    }
  }

  Arena& arena_;
  Pool& pool_;
  Route route_;
  std::mt19937 random_;
  std::atomic<int> turn_ = 0;
  std::atomic<int> begun_ = 0;
  std::thread thread_;
};

void run_round(unsigned seed) {
  Arena arena = make_arena(64_MiB, "index", false);
  Pool pool;
  std::vector<std::unique_ptr<Churner>> churners;
  for (const Route route : kRoutes) {
    churners.push_back(std::make_unique<Churner>(arena, pool, route, seed++));
  }
  for (int generation = 0; generation < 2; ++generation) {
    // Of the open part and another thread's: so each thread's first free has to wait for us.
    for (int i = 0; i < 60; ++i) pool.put({arena.allocate(1000), 1000});
    for (const auto& churner : churners) churner->begin_steps();
    const auto frozen = generation == 0 ? arena.freeze() : arena.refreeze();
    ASSERT_TRUE(frozen) << frozen.error().message;
    const auto thawed = arena.thaw();
    ASSERT_TRUE(thawed) << thawed.error().message;
  }
  for (const auto& churner : churners) churner->stop();
  std::vector<void*> kept;
  for (const Block& block : pool.blocks()) kept.push_back(block.address);
  const auto stats = arena.stats();
  EXPECT_EQ(stats.live_allocations - stats.dropped_frees, kept.size());
  std::sort(kept.begin(), kept.end());
  EXPECT_EQ(std::adjacent_find(kept.begin(), kept.end()), kept.end()) << "one block given twice";
}

TEST(FreesWhileThawing, AreCountedAndReachNoFrozenBlock) {
  SCOPED_TRACE("seed " + std::to_string(test::seed()));
  const int rounds = test::little_or(30, 10'000);
  for (int round = 0; round < rounds && !HasFailure(); ++round) {
    run_round(test::seed() + 10 * static_cast<unsigned>(round));
  }
}

}  // namespace
}  // namespace cowshed
