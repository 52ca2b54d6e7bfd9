#include <malloc.h>
#include <pthread.h>

#include "random_blocks.h"
#include "scope_blocks.h"

// Scopes of many threads, and in forked children.
namespace cowshed {
namespace {

// The C library keeps the stacks of threads that ended, with records that it allocated.
TEST(ArenaScope, AThreadStartedInsideLeavesNothingThatIsWrittenToLater) {
  const auto child = run_in_child([] {
    Arena arena = make_arena();
    in_scope(arena, [] { std::thread([] { give(take(10, 64)); }).join(); });
    if (!arena.freeze()) return "not frozen";
    for (int i = 0; i < 5; ++i) std::thread([] { give(take(10, 64)); }).join();
    return "fine";
  });
  EXPECT_EQ(child.said, "fine") << "signal " << child.signal;
}

TEST(ArenaScope, IsOverInAForkedChild) {
  Arena outer = make_arena("outer");
  Arena arena = make_arena();
  auto* before = strdup("from before");
  char* inside = nullptr;
  std::optional<ArenaScope> second;
  const std::function<std::string()> body = [&]() -> std::string {
    if (malloc_hits(arena) + malloc_hits(outer) != 0) return "hit";
    second.reset();
    if (malloc_hits(arena) + malloc_hits(outer) != 0) return "hit after its end";
    std::free(before);
    std::free(inside);  // not there, dropped
    if (code_of(ArenaScope::enter(arena)) != ErrorCode::not_inherited) return "entered";
    Arena own = make_arena("own");
    if (in_scope(own, [&] { return count_inside(own, take(100, 48)); }) != 100) return "no scope";
    return malloc_hits(own) == 0 && own.freeze() ? "fine" : "failed";
  };
  {
    const auto first = ArenaScope::enter(outer);
    second.emplace(ArenaScope::enter(arena).value());
    inside = strdup("inside");
    const auto child = run_in_child(body);
    EXPECT_EQ(child.said, "fine") << "signal " << child.signal;
    EXPECT_EQ(count_inside(arena, take(100, 48)), 100U);
    EXPECT_STREQ(inside, "inside");
    second.reset();
  }
  std::free(before);
  EXPECT_EQ(malloc_hits(arena), 0U);
  EXPECT_TRUE(arena.freeze());
  EXPECT_TRUE(outer.freeze());
}

int handlers_hit = 0;
const Arena* arena_of_handlers = nullptr;

// Handlers of others run in the child before ours.
TEST(ArenaScope, IsOverInTheChildForEveryForkHandler) {
  const auto allocate = [] {
    const std::unique_ptr<int> block = std::make_unique<int>(1);
    handlers_hit += arena_of_handlers != nullptr && arena_of_handlers->contains(block.get());
  };
  const std::function<std::string()> body = [&] {
    // Registered before any arena of this program, when it is run by itself.
    static const int registered = pthread_atfork(nullptr, nullptr, allocate);
    const Arena arena = make_arena();
    arena_of_handlers = &arena;
    const std::function<std::string()> in_child = [] { return std::to_string(handlers_hit); };
    const auto scope = ArenaScope::enter(arena);
    const auto child = run_in_child(in_child);
    return registered == 0 && child.said == "0" ? "fine" : "signal";
  };
  EXPECT_EQ(run_in_child(body).said, "fine");
}

TEST(ArenaScope, ForkWhileOtherThreadsAreInside) {
  Arena arena = make_arena("busy", 512_MiB);
  test::fork_while(
      50,
      [&](int) {
        in_scope(arena, [] {
          for (std::size_t size = 8; size < 100000; size += size / 2) give(take(3, size));
        });
        give(take(10, 100));
      },
      [] {
        Arena own = make_arena("own");
        const auto blocks = in_scope(own, [] { return take(100, 48); });
        const bool fine = count_inside(own, blocks) == 100 && malloc_hits(own) == 0 && own.freeze();
        return fine ? "fine" : "failed";
      });
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

// What libc makes at its first use is made by the first scope, which here takes long: the file of
// the time zone is a pipe.
TEST(ArenaScope, ForkWhileAnotherThreadBeginsTheFirst) {
  const std::string fifo = testing::TempDir() + "cowshed-zone-" + std::to_string(getpid());
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  setenv("TZ", (":" + fifo).c_str(), 1);
  const Arena arena = make_arena();
  std::atomic<bool> has_begun = false;
  std::thread first([&] {
    in_scope(arena, [] {});
    has_begun = true;
  });
  int writer = -1;
  while (writer < 0 && !has_begun) writer = open(fifo.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  std::thread closer([writer] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    close(writer);
  });
  const auto child = run_in_child([] {
    alarm(60);
    const Arena own = make_arena("own");
    return in_scope(own, [] { return std::string("fine"); });
  });
  closer.join();
  first.join();
  unlink(fifo.c_str());
  EXPECT_GE(writer, 0) << "it was not the first scope of the process";
  EXPECT_EQ(child.said, "fine") << "signal " << child.signal;
}

// Threads without a scope, which know the arena only by the address.
TEST(ArenaScope, AnyThreadMayFreeAndReallocWhileTheArenaIsThawed) {
  for (int round = 0; round < 100; ++round) {
    Arena arena = make_arena();
    std::atomic<std::size_t> wrong = 0;
    for (int generation = 0; generation < 2; ++generation) {
      const auto frees = in_scope(arena, [] { return take(100, 500); });
      const auto moves = in_scope(arena, [] { return take(100, 500); });
      std::atomic<int> begun = 0;
      std::thread freer([&] {
        begun = 1;
        begun.notify_one();
        give(frees);
      });
      std::thread mover([&] {
        for (char* block : moves) {
          const std::size_t usable = malloc_usable_size(block);  // 0: frozen
          auto* moved = static_cast<char*>(std::realloc(block, 1000));
          wrong += (usable == 0 || usable >= 500) && !arena.contains(moved) &&
                           std::count(moved, moved + 500, 1) == 500
                       ? 0
                       : 1;
          std::free(moved);
        }
      });
      begun.wait(0);
      ASSERT_TRUE(generation == 0 ? arena.freeze() : arena.refreeze());
      ASSERT_TRUE(arena.thaw());
      freer.join();
      mover.join();
    }
    EXPECT_EQ(wrong, 0U);
    const auto stats = arena.stats();
    EXPECT_EQ(stats.live_allocations, stats.dropped_frees);
  }
}

using Block = test::RandomBlock;

class RandomWork {
 public:
  RandomWork(unsigned seed, const Arena& first, const Arena& second, std::vector<Block>& shared,
             std::mutex& mutex)
      : random_(seed), first_(first), second_(second), shared_(shared), mutex_(mutex) {}

  // The number of blocks that lay in the wrong place or had other bytes.
  std::size_t run(int steps) {
    for (int i = 0; i < steps; ++i)
      if (random_() % 50 == 0) inside(first_, 1);
      else step(nullptr);
    for (auto& block : blocks_) free_block(block);
    return wrong_;
  }

 private:
  void inside(const Arena& arena, int depth) {
    const auto scope = ArenaScope::enter(arena).value();
    for (auto i = random_() % 100; i > 0; --i)
      if (depth < 4 && random_() % 30 == 0)
        inside(random_() % 2 == 0 ? first_ : second_, depth + 1);
      else step(&arena);
  }

  void step(const Arena* current) {
    Block& block = blocks_[random_() % blocks_.size()];
    auto drawn = Block::draw(random_, 18, 1);
    switch (random_() % 4) {
      case 0: {  // exchange with other threads
        const std::lock_guard lock(mutex_);
        std::swap(block, shared_[random_() % shared_.size()]);
        return;
      }
      case 1:
        if (block.bytes != nullptr) {
          block.bytes = static_cast<unsigned char*>(std::realloc(block.bytes, drawn.size));
          block.size = std::min(block.size, drawn.size);
          wrong_ += block.intact() ? 0 : 1;
          block = drawn.fill(block.bytes);
          break;
        }
        [[fallthrough]];
      default:
        free_block(block);
        block = drawn.fill(random_() % 8 == 0 ? std::aligned_alloc(128, (drawn.size + 127) & ~127UL)
                                              : std::malloc(drawn.size));
    }
    check_place(block.bytes, current);
  }

  void free_block(Block& block) {
    wrong_ += block.bytes == nullptr || block.intact() ? 0 : 1;
    std::free(block.bytes);
    block = {};
  }
  void check_place(const void* block, const Arena* current) {
    for (const Arena* arena : {&first_, &second_})
      wrong_ += arena->contains(block) == (arena == current) ? 0 : 1;
  }

  std::mt19937 random_;
  const Arena& first_;
  const Arena& second_;
  std::vector<Block>& shared_;
  std::mutex& mutex_;
  std::vector<Block> blocks_ = std::vector<Block>(200);
  std::size_t wrong_ = 0;
};

TEST(ArenaScope, AnyMixOfThreadsScopesAndCalls) {
  const unsigned seed = test::seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Arena first = make_arena("first", 1_GiB);
  Arena second = make_arena("second", 1_GiB);
  std::vector<Block> shared(100);
  std::mutex mutex;
  std::atomic<std::size_t> wrong = 0;
  (void)begin_threads(4U, [&](unsigned i) {
    wrong += RandomWork(seed + i, first, second, shared, mutex).run(30000);
  });
  EXPECT_EQ(wrong, 0U);
  for (const auto& block : shared) std::free(block.bytes);
  EXPECT_EQ(first.stats().live_allocations, 0U);
  EXPECT_EQ(second.stats().live_allocations, 0U);
  EXPECT_TRUE(first.freeze());
  EXPECT_TRUE(second.freeze());
}

}  // namespace
}  // namespace cowshed
