#include <mutex>

#include "random_blocks.h"
#include "share.h"

namespace cowshed {
namespace {

using test::RandomBlock;

constexpr std::size_t kThreads = 8;
constexpr std::size_t kBlocks =
    test::kThreadSanitizer ? 100000 : 1000000;  // a million take two minutes
constexpr std::size_t kPerThread = kBlocks / kThreads;

class MixedAllocations : public testing::TestWithParam<FreezeMode> {
 protected:
  // Each thread makes its share.  A third is freed again and made anew as another block, every
  // second of these by whichever thread finds it in the exchange.
  void build_share(std::size_t thread) {
    std::mt19937 random(test::seed() * 100 + static_cast<unsigned>(thread));
    for (std::size_t i = 0; i < kPerThread; ++i) {
      if (i % 3 == 0) {
        RandomBlock temporary = make_block(random);
        if (i % 2 == 0) {
          const std::lock_guard lock(mutex_);
          std::swap(temporary, exchange_[i % exchange_.size()]);
        }
        free_block(temporary);
      }
      blocks_[thread * kPerThread + i] = make_block(random);
    }
  }

  // Mostly up to 1 KiB; one in 500 up to 64 KiB, one in 20,000 up to 4 MiB.
  RandomBlock make_block(std::mt19937& random) {
    const auto drawn = random() % 20000;
    const unsigned bits = drawn == 0 ? 23 : drawn < 40 ? 17 : 11;
    auto block = RandomBlock::draw(random, bits, random() % 16 == 0 ? 13 : 4);
    return block.fill(arena_.allocate(block.size, block.alignment));
  }

  void free_block(const RandomBlock& block) {
    if (block.bytes != nullptr) {
      damaged_ += block.intact() ? 0 : 1;
      arena_.deallocate(block.bytes, block.size, block.alignment);
    }
  }

  // In a child; throws what is wrong.
  void check_and_free_all() {
    for (const RandomBlock& block : blocks_) free_block(block);
    const auto copied = arena_.private_bytes().value();
    const auto dropped = arena_.stats().dropped_frees;
    if (damaged_ != 0 || copied != 0 || dropped != kBlocks) {
      throw std::runtime_error(std::to_string(damaged_) + " blocks damaged, " +
                               std::to_string(copied) + " bytes copied, " +
                               std::to_string(dropped) + " frees dropped");
    }
  }

  Arena arena_ = make_arena(8_GiB, "mixed");
  std::vector<RandomBlock> blocks_{kBlocks};
  std::vector<RandomBlock> exchange_{64};
  std::mutex mutex_;
  std::atomic<std::size_t> damaged_ = 0;
};
COWSHED_EVERY_MODE(MixedAllocations);

// A million blocks from 8 threads, frozen, and checked byte by byte by 8 children at once, which
// free every one of them.
TEST_P(MixedAllocations, AreWhatTheyWereInEveryChild) {
  SCOPED_TRACE("COWSHED_SEED=" + std::to_string(test::seed()));
  (void)begin_threads(kThreads, [this](std::size_t thread) { build_share(thread); });
  for (const RandomBlock& block : exchange_) free_block(block);
  EXPECT_EQ(damaged_, 0U);
  EXPECT_EQ(arena_.stats().live_allocations, kBlocks);
  ASSERT_TRUE(arena_.freeze(GetParam()));
  auto children = start({.count = 8, .name = "check"}, [this] { check_and_free_all(); });
  ASSERT_TRUE(children) << children.error().message;
  for (const auto& exit : children->wait().value())
    EXPECT_TRUE(exit.ok()) << "child " << exit.rank << ": " << exit.error;
  EXPECT_EQ(arena_.private_bytes().value(), 0U);
  EXPECT_EQ(arena_.stats().dropped_frees, 0U);  // the children's are their own
}

}  // namespace
}  // namespace cowshed
