#include <gtest/gtest.h>
#include <random>
#include <set>

#include <cowshed/cow/page_ranges.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kPage = 4096;

PageRanges random_ranges(std::mt19937& random, std::set<std::uint64_t>& pages) {
  PageRanges ranges;
  for (std::uint64_t page = 0; page < 64; ++page) {
    if (random() % 3 == 0) {
      ranges.append({page * kPage, (page + 1) * kPage});
      pages.insert(page);
    }
  }
  return ranges;
}

TEST(PageRanges, MergesNeighboursAndIgnoresEmptyRanges) {
  PageRanges ranges;
  ranges.append({kPage, 2 * kPage});
  ranges.append({2 * kPage, 2 * kPage});
  ranges.append({2 * kPage, 5 * kPage});
  ranges.append({8 * kPage, 9 * kPage});
  EXPECT_EQ(ranges.ranges(), (std::vector<PageRange>{{kPage, 5 * kPage}, {8 * kPage, 9 * kPage}}));
  EXPECT_EQ(ranges.bytes(), 5 * kPage);
}

TEST(PageRanges, OperationsAgreeWithSetsOfPages) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::set<std::uint64_t> a;
    std::set<std::uint64_t> b;
    const PageRanges left = random_ranges(random, a);
    const PageRanges right = random_ranges(random, b);
    PageRanges common;
    PageRanges only_left;
    std::uint64_t within = 0;
    for (const std::uint64_t page : a) {
      (b.contains(page) ? common : only_left).append({page * kPage, (page + 1) * kPage});
      if (page >= 10 && page < 30) within += kPage;
    }
    std::set<std::uint64_t> all = a;
    all.insert(b.begin(), b.end());
    PageRanges either;
    for (const std::uint64_t page : all) either.append({page * kPage, (page + 1) * kPage});
    EXPECT_EQ(unite(left, right), either);
    EXPECT_EQ(intersect(left, right), common);
    EXPECT_EQ(subtract(left, right), only_left);
    EXPECT_EQ(left.bytes_within({10 * kPage, 30 * kPage}), within);
  }
}

}  // namespace
}  // namespace cowshed::cow
