#include <gtest/gtest.h>
#include <set>

#include <cowshed/cow/measurement.h>
#include <cowshed/cow/profile/new_pages.h>
#include <cowshed/cow/profile/tallies.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kPeriod = 64;

class NewPagesTest : public testing::Test {
 protected:
  // Touches pages from `address` on, each 64th a sample.
  void touch(const SampledStack& stack, std::uint64_t address, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; i += kPeriod) {
      held_ += kPeriod;
      pages_.add(&stack, address + i * kPageSize, kPeriod, held_);
      there_.insert(address + i * kPageSize);
    }
  }
  void give_back(std::uint64_t address, std::uint64_t count) {
    held_ -= count;
    there_.erase(there_.lower_bound(address), there_.lower_bound(address + count * kPageSize));
  }
  void look() {
    pages_.look({[this](std::uint64_t address) { return there_.contains(address); },
                 [this](std::uint64_t address) {
                   return address < free_before_ ? NewPage::free : NewPage::held;
                 },
                 held_});
  }
  std::uint64_t of(const SampledStack& stack, bool at_most) {
    std::uint64_t sum = 0;
    NewPages settled = pages_;
    settled.settle();
    settled.visit(at_most, [&](const NewPages::Piece& piece) {
      sum += piece.stack == &stack ? piece.pages : 0;
    });
    return sum;
  }

  SampledStack cache_, request_;
  NewPages pages_;
  std::uint64_t held_ = 0;
  std::uint64_t free_before_ = 0;  // an address
  std::set<std::uint64_t> there_;
};

constexpr std::uint64_t kCacheAt = 1ULL << 30;
constexpr std::uint64_t kBufferAt = 1ULL << 40;

// As in a burst of many processes, whose neighbours have no samples.
TEST_F(NewPagesTest, ASampleMayStandForMorePagesThanAreBesideIt) {
  for (const SampledStack* stack : {&cache_, &request_}) {
    held_ += 2048;
    pages_.add(stack, kCacheAt, 2048, held_);
  }
  there_.insert(kCacheAt);
  look();
  EXPECT_EQ(of(cache_, false), 2048U);
  EXPECT_EQ(of(request_, false), 2048U);
}

TEST_F(NewPagesTest, ABufferThatComesAndGoesIsHeldOnceAtMost) {
  touch(cache_, kCacheAt, 16'384);
  for (int i = 0; i < 20; ++i) {
    touch(request_, kBufferAt, 8192);
    give_back(kBufferAt, 8192);
  }
  EXPECT_EQ(of(cache_, true), 16'384U);
  EXPECT_EQ(of(request_, true), 8192U);
  look();
  EXPECT_EQ(of(cache_, false), 16'384U);
  EXPECT_EQ(of(request_, false), 0U);
}

// What came last was taken for given back.
TEST_F(NewPagesTest, ALookTellsWhatWasGivenBack) {
  touch(request_, kBufferAt, 8192);
  touch(cache_, kCacheAt, 16'384);
  give_back(kBufferAt, 8192);
  touch(cache_, kCacheAt + 16'384 * kPageSize, 1024);
  EXPECT_NE(of(request_, false), 0U);
  look();
  EXPECT_EQ(of(request_, false), 0U);
  EXPECT_EQ(of(cache_, false), 17'408U);
}

TEST_F(NewPagesTest, ABufferThatIsTouchedAgainIsTheSameBuffer) {
  touch(request_, kBufferAt, 8192);
  touch(cache_, kCacheAt, 16'384);
  give_back(kBufferAt, 8192);
  touch(request_, kBufferAt, 8192);
  EXPECT_NEAR(static_cast<double>(of(request_, false)), 8192, 8192 * 0.1);
  EXPECT_NEAR(static_cast<double>(of(cache_, false)), 16'384, 8192 * 0.1);
}

TEST_F(NewPagesTest, WhatCameAgainInPlaceOfWhatWasGivenBackIsHeld) {
  touch(request_, kBufferAt, 8192);
  give_back(kBufferAt, 8192);
  touch(request_, kBufferAt, 2048);
  look();
  std::uint64_t held = 0;
  pages_.visit(true, [&](const NewPages::Piece& piece) {
    held += piece.gone == NewPages::kNever ? piece.pages : 0;
  });
  EXPECT_EQ(of(request_, true), 8192U);
  EXPECT_EQ(held, 2048U);
}

TEST_F(NewPagesTest, ALookTellsWhatMallocHoldsFree) {
  touch(cache_, kCacheAt, 1024);
  touch(request_, kBufferAt, 1024);
  free_before_ = kBufferAt;
  look();
  pages_.visit(false, [](const NewPages::Piece& piece) {
    EXPECT_EQ(piece.state == NewPage::free, piece.address < kBufferAt);
  });
}

TEST_F(NewPagesTest, PagesThatMoveAreHeld) {
  touch(cache_, kCacheAt, 16'384);
  there_.clear();
  look();
  EXPECT_EQ(of(cache_, false), 16'384U);
}

TEST_F(NewPagesTest, WhatItNoLongerHadAtItsEndWasGivenBack) {
  touch(cache_, kCacheAt, 16'384);
  touch(request_, kBufferAt, 8192);
  pages_.end(16'384);
  EXPECT_EQ(of(request_, true), 8192U);
  EXPECT_EQ(of(request_, false), 0U);
  EXPECT_EQ(of(cache_, false), 16'384U);
}

TEST_F(NewPagesTest, WhatALookSawWasHeldUntilTheEnd) {
  touch(cache_, kCacheAt, 16'384);
  look();
  touch(request_, kBufferAt, 8192);
  pages_.end(0);
  EXPECT_EQ(of(cache_, false), 16'384U);
  EXPECT_EQ(of(request_, false), 0U);
}

// As mlock(2) makes.
TEST_F(NewPagesTest, PagesWithoutASampleExplainNone) {
  touch(cache_, kCacheAt, 4096);
  held_ += 16'384;
  touch(cache_, kCacheAt + 4096 * kPageSize, 4096);
  give_back(kCacheAt, 4096);
  look();
  EXPECT_EQ(of(cache_, false), 4096U);
}

TEST_F(NewPagesTest, WhatLeftLongAgoTakesNoMemory) {
  for (int i = 0; i < 1000; ++i) {
    touch(request_, kBufferAt, 8192);
    give_back(kBufferAt, 8192);
  }
  touch(cache_, kCacheAt, 16'384);
  EXPECT_EQ(of(cache_, true), 16'384U);
  EXPECT_EQ(of(request_, true), 0U);
}

}  // namespace
}  // namespace cowshed::cow
