#include <cowshed/cow/page_ranges.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kPageBytes = arch::kPage;

PageRanges random_ranges(std::mt19937& random, std::set<std::uint64_t>& pages) {
  PageRanges ranges;
  for (std::uint64_t page = 0; page < 64; ++page) {
    if (random() % 3 == 0) {
      ranges.append({page * kPageBytes, (page + 1) * kPageBytes});
      pages.insert(page);
    }
  }
  return ranges;
}

TEST(PageRanges, MergesNeighboursAndIgnoresEmptyRanges) {
  PageRanges ranges;
  ranges.append({kPageBytes, 2 * kPageBytes});
  ranges.append({2 * kPageBytes, 2 * kPageBytes});
  ranges.append({2 * kPageBytes, 5 * kPageBytes});
  ranges.append({8 * kPageBytes, 9 * kPageBytes});
  EXPECT_EQ(ranges.ranges(), (std::vector<PageRange>{{kPageBytes, 5 * kPageBytes},
                                                     {8 * kPageBytes, 9 * kPageBytes}}));
  EXPECT_EQ(ranges.bytes(), 5 * kPageBytes);
}

TEST(PageRanges, OperationsAgreeWithSetsOfPages) {
  SCOPED_TRACE(::testing::Message() << "seed " << cowshed::test::seed());
  std::mt19937 random(cowshed::test::seed());
  for (int round = 0; round < 200; ++round) {
    std::set<std::uint64_t> a;
    std::set<std::uint64_t> b;
    const PageRanges left = random_ranges(random, a);
    const PageRanges right = random_ranges(random, b);
    PageRanges common;
    PageRanges only_left;
    std::uint64_t within = 0;
    for (const std::uint64_t page : a) {
      (b.contains(page) ? common : only_left).append({page * kPageBytes, (page + 1) * kPageBytes});
      if (page >= 10 && page < 30) within += kPageBytes;
    }
    std::set<std::uint64_t> all = a;
    all.insert(b.begin(), b.end());
    PageRanges either;
    for (const std::uint64_t page : all)
      either.append({page * kPageBytes, (page + 1) * kPageBytes});
    EXPECT_EQ(unite(left, right), either);
    EXPECT_EQ(intersect(left, right), common);
    EXPECT_EQ(subtract(left, right), only_left);
    EXPECT_EQ(left.bytes_within({10 * kPageBytes, 30 * kPageBytes}), within);
  }
}

}  // namespace
}  // namespace cowshed::cow
