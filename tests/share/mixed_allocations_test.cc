#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <iostream>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/workers.h>

namespace cowshed {
namespace {

constexpr std::size_t kThreads = 8;
#if defined(__SANITIZE_THREAD__)
constexpr std::size_t kBlocks = 100000;  // a million take two minutes
#else
constexpr std::size_t kBlocks = 1000000;
#endif
constexpr std::size_t kPerThread = kBlocks / kThreads;
constexpr int kChildren = 8;

// COWSHED_SEED in the environment, to repeat a run.
std::uint64_t choose_seed() {
  const char* given = std::getenv("COWSHED_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

// splitmix64: what a block is follows from the seed and its number alone.
std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111eb;
  return value ^ (value >> 31U);
}

struct Shape {
  std::size_t size;
  std::size_t alignment;
  std::uint64_t pattern;
};

// Mostly 16 B to 1 KiB; one in 500 up to 64 KiB, one in 20,000 up to 4 MiB.
Shape shape_of(std::uint64_t seed, std::uint64_t number) {
  const std::uint64_t random = mix(seed ^ mix(number));
  const std::size_t most = number % 20000 == 7 ? 4_MiB
                           : number % 500 == 3 ? 64_KiB
                                               : std::size_t{32} << (random >> 8U) % 6;
  const std::size_t size = 16 + (random >> 16U) % (most - 15);
  const std::size_t alignment = std::size_t{1} << (random % 16 == 0 ? (random >> 4U) % 13 : 3);
  return {size, alignment, mix(random)};
}

std::uint64_t next(std::uint64_t word) { return word * 6364136223846793005U + 1; }

void fill(unsigned char* bytes, const Shape& shape) {
  std::uint64_t word = shape.pattern;
  std::size_t at = 0;
  for (; at + sizeof word <= shape.size; at += sizeof word, word = next(word)) {
    std::memcpy(bytes + at, &word, sizeof word);
  }
  std::memcpy(bytes + at, &word, shape.size - at);
}

bool is_intact(const unsigned char* bytes, const Shape& shape) {
  std::uint64_t word = shape.pattern;
  std::uint64_t wrong = reinterpret_cast<std::uintptr_t>(bytes) % shape.alignment;
  std::size_t at = 0;
  for (; at + sizeof word <= shape.size; at += sizeof word, word = next(word)) {
    std::uint64_t found = 0;
    std::memcpy(&found, bytes + at, sizeof found);
    wrong |= found ^ word;
  }
  return wrong == 0 && std::memcmp(bytes + at, &word, shape.size - at) == 0;
}

class MixedAllocations : public testing::TestWithParam<FreezeMode> {
 protected:
  void SetUp() override {
    std::cout << "COWSHED_SEED=" << seed_ << '\n';
    auto arena = Arena::create({.name = "mixed", .capacity = 8_GiB});
    ASSERT_TRUE(arena) << arena.error().message;
    arena_.emplace(std::move(*arena));
  }

  // Each thread makes its share.  A third is freed again and made anew as another block, every
  // second of these by whichever thread finds it in the exchange.
  void build() {
    std::vector<std::thread> threads;
    for (std::size_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([this, thread] { build_share(thread); });
    }
    for (auto& thread : threads) {
      thread.join();
    }
    for (const auto& [bytes, number] : exchange_) {
      free_block(bytes, number);
    }
  }

  void build_share(std::size_t thread) {
    for (std::size_t i = 0; i < kPerThread; ++i) {
      const std::size_t number = thread * kPerThread + i;
      if (number % 3 == 0) {
        auto* temporary = make_block(number + kBlocks);
        if (number % 2 == 0) {
          free_block(temporary, number + kBlocks);
        } else {
          pass_on(temporary, number + kBlocks);
        }
      }
      blocks_[number] = make_block(number);
    }
  }

  unsigned char* make_block(std::size_t number) {
    const Shape shape = shape_of(seed_, number);
    auto* bytes = static_cast<unsigned char*>(arena_->allocate(shape.size, shape.alignment));
    fill(bytes, shape);
    return bytes;
  }

  void free_block(unsigned char* bytes, std::size_t number) {
    const Shape shape = shape_of(seed_, number);
    damaged_ += is_intact(bytes, shape) ? 0 : 1;
    arena_->deallocate(bytes, shape.size, shape.alignment);
  }

  // Leaves a block for others, and frees what others left.
  void pass_on(unsigned char* bytes, std::size_t number) {
    std::pair<unsigned char*, std::size_t> other{bytes, number};
    {
      const std::lock_guard lock(mutex_);
      if (exchange_.size() < 64) {
        exchange_.push_back(other);
        return;
      }
      std::swap(other, exchange_[number % exchange_.size()]);
    }
    free_block(other.first, other.second);
  }

  // In a child; throws what is wrong.
  void check_and_free_all() {
    std::size_t damaged = 0;
    for (std::size_t number = 0; number < kBlocks; ++number) {
      damaged += is_intact(blocks_[number], shape_of(seed_, number)) ? 0 : 1;
    }
    for (std::size_t number = 0; number < kBlocks; ++number) {
      const Shape shape = shape_of(seed_, number);
      arena_->deallocate(blocks_[number], shape.size, shape.alignment);
    }
    const auto copied = arena_->private_bytes().value();
    const auto dropped = arena_->stats().dropped_frees;
    if (damaged != 0 || copied != 0 || dropped != kBlocks) {
      throw std::runtime_error(std::to_string(damaged) + " blocks damaged, " +
                               std::to_string(copied) + " bytes copied, " +
                               std::to_string(dropped) + " frees dropped");
    }
  }

  const std::uint64_t seed_ = choose_seed();
  std::optional<Arena> arena_;
  std::vector<unsigned char*> blocks_ = std::vector<unsigned char*>(kBlocks);
  std::vector<std::pair<unsigned char*, std::size_t>> exchange_;
  std::mutex mutex_;
  std::atomic<std::size_t> damaged_ = 0;
};

// A million blocks from 8 threads, frozen, and checked byte by byte by 8 children at once, which
// free every one of them.
TEST_P(MixedAllocations, AreWhatTheyWereInEveryChild) {
  build();
  EXPECT_EQ(damaged_, 0U);
  EXPECT_EQ(arena_->stats().live_allocations, kBlocks);
  ASSERT_TRUE(arena_->freeze(GetParam()));
  auto children =
      start({.count = kChildren, .name = "check"}, [this](const Worker&) { check_and_free_all(); });
  ASSERT_TRUE(children) << children.error().message;
  const auto exits = children->wait();
  ASSERT_TRUE(exits) << exits.error().message;
  ASSERT_EQ(exits->size(), std::size_t{kChildren});
  for (const auto& exit : *exits) {
    EXPECT_TRUE(exit.ok()) << "child " << exit.rank << ": " << exit.error;
  }
  EXPECT_EQ(arena_->private_bytes().value(), 0U);
  EXPECT_EQ(arena_->stats().dropped_frees, 0U);  // the children's are their own
}

INSTANTIATE_TEST_SUITE_P(Modes, MixedAllocations,
                         testing::Values(FreezeMode::strict, FreezeMode::lenient),
                         [](const auto& mode) {
                           return mode.param == FreezeMode::strict ? "strict" : "lenient";
                         });

// A full arena of which everything was freed serves every other size.
TEST(FullArena, ServesOtherSizesAfterwards) {
  auto arena = Arena::create({.name = "small", .capacity = 8_MiB});
  ASSERT_TRUE(arena);
  for (const std::size_t size : {48U, 1000U, 3000U, 100000U, 20U, 1000000U}) {
    std::vector<void*> blocks;
    try {
      for (;;) {
        blocks.push_back(arena->allocate(size));
        std::memset(blocks.back(), 1, size);
      }
    } catch (const ArenaBadAlloc& full) {
      EXPECT_EQ(full.error().code, ErrorCode::capacity_exceeded);
    }
    EXPECT_GT(blocks.size() * size, 4_MiB) << size;
    for (void* block : blocks) {
      arena->deallocate(block, size);
    }
    EXPECT_EQ(arena->stats().live_allocations, 0U);
  }
}

}  // namespace
}  // namespace cowshed
